"""Small helpers for text and numbers."""

from textkit.stats import mean, median, mode
from textkit.text import chunks, slugify, truncate

__all__ = ["chunks", "mean", "median", "mode", "slugify", "truncate"]
