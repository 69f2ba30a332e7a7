"""`sliceloop bench capture-page`: a page that steps full-screen through slices with tags, to be filmed.

page.html shows the slides and nothing else; page.json beside it tells the score what they are. Both hold the slices'
pixels, so they are as confidential as the slices.
"""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.labels import LABELS, Label
from sliceloop.capture_bench.cases import stratified
from sliceloop.capture_bench.slices import PHANTOM_SPLIT, shown_picture, write_bench_phantoms
from sliceloop.capture_bench.slide import MOST_SLIDES, draw_slide
from sliceloop.progress import counted
from training.data.dataset import DataSet, open_dataset
from training.data.labelled import prepared, read_file
from training.data.slices import LabelledSlice
from training.durable import write_atomically
from training.judging.predictions import patient_key, slice_id
from training.judging.unseen import NoSlicesError

FORMAT = 1
DWELL_S, GAP_S = 4.0, 0.4
"""How long a slide stands, and how long the page is white before the next one, so that no picture holds two."""


class PageError(ValueError):
    """A page that cannot be made or read; the message says what to do."""


class PageSlice(BaseModel):
    """One slide; `patient` is a key, `prepared` the PNG of the digital slice as networks see it, in base64."""

    model_config = ConfigDict(frozen=True)
    slice_id: str
    label: Label
    patient: str
    source: str
    height: int
    width: int
    prepared: str

    def pixels(self) -> NDArray[np.uint8]:
        """Return the digital slice as networks see it, uint8 [256, 256]."""
        png = cv2.imdecode(np.frombuffer(base64.b64decode(self.prepared), np.uint8), cv2.IMREAD_GRAYSCALE)
        if png is None:
            raise PageError(f"slide {self.slice_id} holds no picture: make the page again")
        return np.asarray(png, np.uint8)


class PageRecord(BaseModel):
    """page.json: the slides in their order; the number in a slide's tags is its place here.

    `are_drawn` tells phantoms that were drawn for this page: their patients' ids stand for nobody else's.
    """

    model_config = ConfigDict(frozen=True)
    format: int = FORMAT
    split: str
    seed: int
    dwell_s: float
    are_drawn: bool
    slices: tuple[PageSlice, ...]

    def sha256(self) -> str:
        """Return the hash of what is shown, in this order."""
        lines = (f"{one.slice_id},{one.label},{one.patient}" for one in self.slices)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class PageRequest:
    """What the user asked for: either `data` or `phantoms`; `slices` slides, drawn evenly over the classes."""

    data: Path | None
    phantoms: bool
    out: Path
    split: str
    slices: int
    seed: int
    dwell_s: float


def write_page(request: PageRequest) -> PageRecord:
    """Write page.html and page.json; raises `PageError` and what reading slices raises."""
    if (request.data is None) != request.phantoms:
        raise PageError("name a data set's folder, or ask for --phantoms: one of them")
    if request.slices > MOST_SLIDES:
        raise PageError(f"{request.slices} slices: the tags name at most {MOST_SLIDES}")
    with ExitStack() as stack:
        dataset, split = _dataset(request, stack)
        rows = _drawn(dataset, split, request)
        pngs, slices = _slides(dataset.folder, rows)
    record = PageRecord(
        split=split, seed=request.seed, dwell_s=request.dwell_s, are_drawn=request.phantoms, slices=slices
    )
    write_atomically(request.out, page_html(pngs, request.dwell_s).encode())
    write_atomically(request.out.with_suffix(".json"), record.model_dump_json(indent=1).encode())
    minutes = len(rows) * (request.dwell_s + GAP_S) / 60
    typer.echo(f"{len(rows)} slides in {request.out} ({minutes:.1f} minutes), their truth in {_json_name(request.out)}")
    if not request.phantoms:
        typer.echo("both hold the slices' pixels: keep them, and recordings, as confidential as the slices")
    return record


def read_page(path: Path) -> PageRecord:
    """Read page.json; raises `PageError`."""
    try:
        record = PageRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PageError(f"{path} cannot be read ({error}); make it with `sliceloop bench capture-page`") from error
    except ValidationError as error:
        raise PageError(f"{path} is no page of ours ({error.error_count()} faults); give the .json file") from error
    if record.format > FORMAT:
        raise PageError(f"{path} has format {record.format}, this version reads up to {FORMAT}: update first")
    return record


def page_html(pngs: Sequence[bytes], dwell_s: float) -> str:
    """Return the page that shows these slides (PNG files), without anything from elsewhere."""
    images = "\n".join(
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}" hidden>' for png in pngs
    )
    return _HTML.format(images=images, count=len(pngs), dwell_ms=round(dwell_s * 1e3), gap_ms=round(GAP_S * 1e3))


def _dataset(request: PageRequest, stack: ExitStack) -> tuple[DataSet, str]:
    if request.data is not None:
        return open_dataset(request.data), request.split
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sliceloop-phantoms-")))
    with counted("phantom slices") as on_slice:
        write_bench_phantoms(folder, request.slices, request.seed, on_slice)
    return open_dataset(folder), PHANTOM_SPLIT


def _drawn(dataset: DataSet, split: str, request: PageRequest) -> list[LabelledSlice]:
    rows = [row for row in dataset.rows if row.split == split]
    if not rows:
        raise NoSlicesError(f"{dataset.folder} has no slice in split {split}")
    return [rows[at] for at in stratified([LABELS.index(row.label) for row in rows], request.slices, request.seed)]


def _slides(folder: Path, rows: Sequence[LabelledSlice]) -> tuple[list[bytes], tuple[PageSlice, ...]]:
    pngs, slices = [], []
    with counted("slides") as on_slice:
        for number, row in enumerate(rows):
            picture, pixels = shown_picture(folder, row), prepared(read_file(folder, row), row)
            pngs.append(_png(draw_slide(picture, number).picture))
            slices.append(
                PageSlice(
                    slice_id=slice_id(pixels),
                    label=row.label,
                    patient=patient_key(row.patient_id),
                    source=row.source,
                    height=picture.shape[0],
                    width=picture.shape[1],
                    prepared=base64.b64encode(_png(pixels)).decode(),
                )
            )
            on_slice(number + 1, len(rows))
    return pngs, tuple(slices)


def _png(picture: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def _json_name(html: Path) -> str:
    return html.with_suffix(".json").name


_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sliceloop: slides to film</title><style>
html, body {{ margin: 0; height: 100%; background: #fff; color: #000; overflow: hidden; cursor: none; }}
img {{ position: fixed; inset: 0; width: 100vw; height: 100vh; object-fit: contain; }}
[hidden] {{ display: none; }}
p {{ position: fixed; inset: 0; margin: auto; width: 40em; height: 12em; font: 20px/1.5 sans-serif; }}
</style></head><body>
<p id="words"></p>
{images}
<script>
const slides = [...document.querySelectorAll("img")], words = document.getElementById("words");
const begin = "{count} slides. Start the recording, then press Space: the page goes full-screen and steps through " +
  "them. Space pauses, arrows step, Home begins anew. Hide the mouse, and dim no part of the screen.";
const end = "That was the last slide. Stop the recording.";
let at = -1, timer = 0, running = false;
function show(next) {{
  clearTimeout(timer);
  slides.forEach((slide) => {{ slide.hidden = true; }});
  at = Math.max(-1, Math.min(next, slides.length));
  words.textContent = at < 0 ? begin : at === slides.length ? end : "";
  if (at < 0 || at === slides.length) {{ running = false; return; }}
  timer = setTimeout(() => {{
    slides[at].hidden = false;
    if (running) timer = setTimeout(() => show(at + 1), {dwell_ms});
  }}, {gap_ms});
}}
document.addEventListener("keydown", (event) => {{
  const step = {{ ArrowRight: 1, ArrowLeft: -1 }}[event.key];
  if (event.key === " ") {{
    running = !running;
    if (running && document.documentElement.requestFullscreen) document.documentElement.requestFullscreen();
    if (running) show(Math.max(at, 0));
    else {{ clearTimeout(timer); if (slides[at]) slides[at].hidden = false; }}
  }} else if (step) {{ running = false; show(at + step); }}
  else if (event.key === "Home") {{ running = false; show(-1); }}
}});
show(-1);
</script></body></html>
"""
