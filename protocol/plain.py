"""Which values a message may hold: those that JSON and CBOR, the ledger and the next peer can all say again."""

import math
from datetime import datetime
from typing import Any

MAX_NESTING = 32


def plain_fields(loaded: object) -> dict[str, Any]:
    """Return what a codec loaded if it is a map of named plain values; raises `ValueError` for anything else."""
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise ValueError("not a map of named fields")
    for name, value in loaded.items():
        if not (is_plain(name) and is_plain(value)):
            raise ValueError(f"{name!r:.80} holds a value that cannot be passed on")
    return loaded


def is_plain(value: object, nesting: int = 0) -> bool:
    """Tell whether the value is None, bool, 64-bit int, finite float, text, bytes, aware time, or made of these.

    Text must be UTF-8 (JSON can spell a lone surrogate too), and lists and maps nest no deeper than `MAX_NESTING`.
    """
    match value:
        case None | bool() | bytes():
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case str():
            return value.encode(errors="ignore").decode() == value
        case datetime():
            return value.tzinfo is not None
        case list():
            return nesting < MAX_NESTING and all(is_plain(item, nesting + 1) for item in value)
        case dict():
            keys_are_text = all(isinstance(key, str) and is_plain(key) for key in value)
            return nesting < MAX_NESTING and keys_are_text and is_plain(list(value.values()), nesting)
    return False
