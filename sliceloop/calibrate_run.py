"""`sliceloop calibrate`: show the calibration page, and solve a photograph of it."""

import base64
import io
import webbrowser
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_agent.calibration import Calibration, draw_page, solve
from training.durable import write_atomically

MAX_PHOTOGRAPH_BYTES = 64 * 1024 * 1024
MAX_PHOTOGRAPH_PIXELS = 40_000_000
MIN_PHOTOGRAPH_SIDE_PX = 64
A4_PX, A4_DPI = (2480, 3508), 300
PRINTED_SHARE = 0.8
"""Of the paper's width: printers leave a rim white."""

_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sliceloop calibration page: press F11 for full screen</title><style>
html, body {{ margin: 0; height: 100%; background: #fff; }}
body {{ display: flex; align-items: center; justify-content: center; }}
img {{ width: min(86vw, 86vh); image-rendering: pixelated; outline: 0.7vh solid #000; }}
@media print {{ img {{ width: 80vw; }} }}
</style></head><body><img alt="grey patches with a tag in each corner" src="data:image/png;base64,{png}"></body></html>
"""


class UnknownPageFormatError(ValueError):
    """The page is written as .html, .png or .pdf."""


class UnreadablePhotographError(ValueError):
    """The file is no picture that a calibration could come from."""


def show_page(out: Path, *, open_browser: bool) -> None:
    """Write the calibration page in the format that the file's name tells, and open it where that is wanted.

    Raises `UnknownPageFormatError`, or `OSError` where it cannot be written.
    """
    writer = _WRITERS.get(out.suffix.lower())
    if writer is None:
        raise UnknownPageFormatError(f"{out.name}: the page is written as {', '.join(_WRITERS)}; name the file so")
    write_atomically(out, writer(draw_page()))
    typer.echo(f"calibration page in {out}")
    typer.echo(
        "show it where the slice will be (full screen, or printed and in the same light), photograph it with the"
    )
    typer.echo("webcam at the same place and exposure, and run: sliceloop calibrate solve PHOTOGRAPH --out FILE.json")
    if open_browser:
        webbrowser.open(out.resolve().as_uri())


def solve_photograph(image: Path, out: Path) -> None:
    """Write the calibration that a photograph of the page gives, and say what it found.

    Raises `UnreadablePhotographError`, a `CalibrationError` that names what is wrong with the photograph, or `OSError`.
    """
    calibration = solve(_read_photograph(image), datetime.now(UTC))
    write_atomically(out, (calibration.model_dump_json(indent=1) + "\n").encode())
    for line in _summary(calibration):
        typer.echo(line)
    typer.echo(f"calibration in {out}: it holds until camera, screen, lamps or exposure change")


def _read_photograph(path: Path) -> NDArray[np.uint8]:
    """Return the picture uint8 [height, width, 3] BGR of a PNG or JPEG file."""
    size = path.stat().st_size
    if size > MAX_PHOTOGRAPH_BYTES:
        raise UnreadablePhotographError(
            f"{path}: {size:,} bytes exceed {MAX_PHOTOGRAPH_BYTES:,}; give a webcam's frame"
        )
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            width, height = picture.size
            if width * height > MAX_PHOTOGRAPH_PIXELS or min(width, height) < MIN_PHOTOGRAPH_SIDE_PX:
                raise UnreadablePhotographError(f"{path}: {width}x{height} px is no webcam's frame; give one as it is")
            rgb = np.asarray(picture.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise UnreadablePhotographError(f"{path} is neither PNG nor JPEG; save the webcam's frame as one") from None
    except (Image.DecompressionBombError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadablePhotographError(f"{path} is damaged ({error}); take it again") from None
    except OSError as error:
        if error.errno is not None:  # the file's, which names its path; without one it is the decoder's
            raise
        raise UnreadablePhotographError(f"{path} is damaged ({error}); take it again") from None
    return np.ascontiguousarray(rgb[..., ::-1])


def _summary(calibration: Calibration) -> tuple[str, ...]:
    blue, green, red = calibration.gains
    white, black = calibration.curve[-1], calibration.curve[0]
    _, x, y, xx, _, yy = calibration.shading
    return (
        f"white is {white / max(black, 1e-6):.0f} times as bright as black, and at {100 * white:.0f} % of the range",
        f"colour cast: blue x {blue:.2f}, green x {green:.2f}, red x {red:.2f}",
        f"shading towards the right {x + xx:+.2f}, left {xx - x:+.2f}, bottom {y + yy:+.2f}, top {yy - y:+.2f}",
        f"lens distortion: {100 * calibration.distortion:+.1f} % at the frame's corner",
        f"patches differ from the fit by {calibration.residual:.1f} grey levels (r.m.s.)",
    )


def _png(page: NDArray[np.uint8]) -> bytes:
    _, encoded = cv2.imencode(".png", page)
    return bytes(encoded)


def _html(page: NDArray[np.uint8]) -> bytes:
    return _HTML.format(png=base64.b64encode(_png(page)).decode()).encode()


def _pdf(page: NDArray[np.uint8]) -> bytes:
    """Return a sheet of A4 with the page in its middle."""
    sheet, side = Image.new("L", A4_PX, 255), round(PRINTED_SHARE * A4_PX[0])
    printed = Image.fromarray(page).resize((side, side), Image.Resampling.NEAREST)
    sheet.paste(printed, ((A4_PX[0] - side) // 2, (A4_PX[1] - side) // 2))
    file = io.BytesIO()
    sheet.save(file, "PDF", resolution=A4_DPI)
    return file.getvalue()


_WRITERS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {".html": _html, ".png": _png, ".pdf": _pdf}
