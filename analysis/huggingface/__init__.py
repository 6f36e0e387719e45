"""Folders that `save_pretrained` of transformers wrote: their models, and text as windows of tokens."""

from .family import HuggingFace
from .folder import Folder, is_saved, read_folder
from .library import library
from .text import read_tokens, tokenised, windows

__all__ = ["Folder", "HuggingFace", "is_saved", "library", "read_folder", "read_tokens", "tokenised", "windows"]
