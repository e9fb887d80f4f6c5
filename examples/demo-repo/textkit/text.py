"""Text helpers."""

import re


def slugify(title):
    """Lower case, with one dash between words and none at the ends."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())
    return words.strip("-")


def truncate(text, width):
    """At most `width` characters; a text that was cut ends in three dots, which count."""
    if len(text) <= width:
        return text
    return text[: width - 3].rstrip() + "..."


def chunks(items, size):
    """Consecutive lists of `size` items; the last one may be shorter."""
    result = []
    for start in range(0, len(items) - 1, size):
        result.append(items[start : start + size])
    return result
