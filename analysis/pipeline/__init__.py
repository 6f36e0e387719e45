"""The whole way in one call: from a model and its data, as users have them, to modules and the evidence for them."""

from .data import Data, read_data
from .one_call import Analysis, analyze, run

__all__ = ["Analysis", "Data", "analyze", "read_data", "run"]
