"""`sliceloop locate`: where the slice lies in photographs, as lines for a person or JSON for a program."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_agent.locate import FrameError, FrameTooLargeError, Location, locate
from edge_agent.locate.bgr import MAX_PIXELS
from edge_agent.refusal import Refusal, sentence


class UnreadableFrameError(FrameError):
    """A file that is no picture, or ends early."""


def run_locate(images: Sequence[Path], *, as_json: bool) -> int:
    """Print a row for each file, and return how many hold no slice or cannot be read."""
    rows = [locate_file(path) for path in images]
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(_lines(rows)))
    return sum(not row["found"] for row in rows)


def locate_file(path: Path) -> dict[str, object]:
    """Return file, found, quad (four [x, y], clockwise from the top left), score, and reason when not found."""
    try:
        return {"file": str(path), **_as_dict(locate(read_frame(path)))}
    except (FrameError, OSError) as error:
        return {"file": str(path), "found": False, "quad": None, "score": 0.0, "reason": f"unreadable: {error}"}


def read_frame(path: Path) -> NDArray[np.generic]:
    """Return the pixels of an image file as they are stored, whatever their depth and channels.

    Raises `FrameTooLargeError` before decoding, and `UnreadableFrameError`.
    """
    try:
        with Image.open(path) as header:
            width, height = header.size
    except UnidentifiedImageError:
        raise UnreadableFrameError(f"{path} is no image; give a PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise FrameTooLargeError(f"{path}: {error}; set a smaller size") from None
    if width * height > MAX_PIXELS:
        raise FrameTooLargeError(f"{path} has {width}x{height} px, over {MAX_PIXELS:,} pixels; set a smaller size")
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableFrameError(f"{path} cannot be decoded; export it again as PNG or JPEG")
    return np.asarray(pixels)


def _as_dict(location: Location) -> dict[str, object]:
    found = location.quad is not None
    quad = location.quad.astype(float).round(2).tolist() if location.quad is not None else None
    reason = {} if found else {"reason": str(location.reason)}
    return {"found": found, "quad": quad, "score": round(location.score, 3), **reason}


def _lines(rows: Iterable[dict[str, object]]) -> Iterable[str]:
    for row in rows:
        if row["found"]:
            yield f"{row['file']}: slice at {row['quad']}, score {row['score']}"
        else:
            yield f"{row['file']}: {_in_words(str(row['reason']))}"


def _in_words(reason: str) -> str:
    try:
        return sentence(Refusal(reason))
    except ValueError:
        return reason
