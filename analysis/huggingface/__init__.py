"""Models of tokens: what is assumed of them, folders that `save_pretrained` wrote, and text as windows of tokens."""

from .family import HuggingFace
from .folder import Folder, is_saved, read_folder
from .language import POSITIONS, assumed_network, is_decoder
from .text import read_tokens, tokenised, windows

__all__ = [
    "POSITIONS",
    "Folder",
    "HuggingFace",
    "assumed_network",
    "is_decoder",
    "is_saved",
    "read_folder",
    "read_tokens",
    "tokenised",
    "windows",
]
