"""The first look at a signed document: an unknown major is refused by name, before anything else is read."""

import json
from typing import Any

from protocol.errors import EnvelopeError, UnsupportedManifestError
from protocol.plain import plain_fields


def supported_fields(payload: bytes, document: str, majors: frozenset[int]) -> dict[str, Any]:
    """Return what a document of a known major says, its other fields unchecked.

    Raises `EnvelopeError` for no document at all, `UnsupportedManifestError` for one of another major: whatever has
    become of its other fields, newer software is what it needs.
    """
    try:
        stated = plain_fields(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"the signed payload is no {document} ({type(error).__name__})") from None
    major = stated.get("major", max(majors))
    if type(major) is not int or major not in majors:  # True is 1, and a list cannot be looked up
        raise UnsupportedManifestError(
            f"{document} major {str(major)[:20]} is unknown here; update the edge's software"
        )
    return stated
