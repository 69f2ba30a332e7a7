"""`sliceloop intake`: train the network that looks before the reading, and check it on a data set."""

import contextlib
import json
import operator
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from edge_agent.intake import Intake, IntakeLimits, judge, shipped_network, upright
from edge_agent.refusal import Refusal
from sliceloop.progress import counted
from training.data.cache import CachingStoppedError
from training.data.dataset import load_split, open_dataset
from training.data.phantom import RECIPE_VERSION
from training.data.slices import SliceSet
from training.durable import write_atomically
from training.intake.captured import scene_cuts
from training.intake.examples import Examples, IntakeStoppedError, drawn_examples, real_examples
from training.intake.export import NETWORK_FILE, STORY_FILE, check_intake_parity, export_intake, story
from training.intake.figures import Share
from training.intake.train import IntakePlan, train_intake
from training.model.decode import ImageError, decode_image
from training.model.preprocess import INPUT_PX, BlankFrameError, Frame, prepare
from training.provenance import code_commit
from training.screen_camera import Family

EXIT_STOPPED = 130
PARITY_PICTURES = 16
HELD_OUT_SEED = 1_000_003
"""The check's scenes come from this seed, those of training from small ones and from the other family."""
PICTURE_FILES = frozenset({".png", ".jpg", ".jpeg", ".dcm"})
SCENES = "simulated scenes without a slice, held-out family"
READ, TURNED = "read", "turned and read"


@dataclass(frozen=True)
class DataChoice:
    """Which data set, how its patients are told, and where decoded slices are kept."""

    folder: Path
    patient_rule: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class IntakeCheck:
    """What is checked: a network (None is the shipped one), on a split, on pictures without a chest, and on scenes."""

    data: DataChoice
    network: Path | None = None
    split: str = "test"
    others: Path | None = None
    scenes: int = 200
    limits: IntakeLimits = field(default_factory=IntakeLimits)
    json_file: Path | None = None


@dataclass(frozen=True)
class Tally:
    """What became of slices: as they are, turned by 90, 180 and 270 degrees, and mirrored."""

    outcomes: Counter[str]
    turned: Share
    mirrored: Share

    @property
    def refused(self) -> Share:
        """Return the share of upright slices that are not read as they are."""
        return Share(self.outcomes.total() - self.outcomes[READ], self.outcomes.total())

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.outcomes + other.outcomes, self.turned + other.turned, self.mirrored + other.mirrored)

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the counts as JSON holds them."""
        return {
            "upright": dict(sorted(self.outcomes.items())),
            "turned": {"recognised": self.turned.hits, "of": self.turned.of},
            "mirrored": {"refused": self.mirrored.hits, "of": self.mirrored.of},
        }


def train_intake_folder(out: Path, plan: IntakePlan, data: DataChoice | None, stop: threading.Event) -> None:
    """Train on phantoms, and on a data set's train split where one is given; write the network and its story."""
    started_s = time.process_time()
    try:
        examples, learnt_from = _examples(plan, data, stop)
        with counted("training") as on_epoch:
            network = train_intake(examples, plan, on_epoch=lambda epoch, _: on_epoch(epoch, plan.epochs), stop=stop)
    except (CachingStoppedError, IntakeStoppedError) as error:
        typer.echo(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    model = export_intake(network)
    noise = np.random.default_rng(plan.seed).integers(0, 256, (PARITY_PICTURES, INPUT_PX, INPUT_PX), np.uint8)
    check_intake_parity(network, model, noise)
    facts: dict[str, JsonValue] = {
        "holds_patients_data": data is not None,
        "learnt_from": learnt_from,
        "examples": {"chest": int(examples.is_chest.sum()), "other": int((~examples.is_chest).sum())},
        "plan": plan.as_dict(),
        "cpu_s": round(time.process_time() - started_s),
        "commit": code_commit(),
    }
    write_atomically(out / NETWORK_FILE, model)
    write_atomically(out / STORY_FILE, story(model, facts).encode())
    typer.echo(f"{out / NETWORK_FILE}: {len(model):,} bytes, learnt in {facts['cpu_s']} s of one core")


def check_intake(request: IntakeCheck, stop: threading.Event) -> None:
    """Print how many upright slices are refused, and what becomes of turned, mirrored and other pictures."""
    intake = Intake(shipped_network() if request.network is None else request.network.read_bytes())
    try:
        slices = _split_of(request.data, request.split, stop)
    except CachingStoppedError as error:
        typer.echo(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    with counted("looking") as on_slice:
        tallies = tally_sources(intake, request.limits, slices, on_slice)
    others = {SCENES: _outcomes(intake, request.limits, _held_out_scenes(request.scenes))}
    if request.others is not None:
        others[str(request.others)] = _outcomes(intake, request.limits, _pictures_of(request.others))
    _show(tallies, others, Console())
    if request.json_file is not None:
        told = {
            "split": request.split,
            "sources": {source: tally.as_dict() for source, tally in tallies.items()},
            "others": {name: dict(sorted(outcomes.items())) for name, outcomes in others.items()},
        }
        write_atomically(request.json_file, (json.dumps(told, indent=1) + "\n").encode())


def tally_sources(
    intake: Intake, limits: IntakeLimits, slices: SliceSet, on_slice: Callable[[int, int], None] = lambda _, __: None
) -> dict[str, Tally]:
    """Look at every slice as it is, turned three ways and mirrored; return the tally of each source."""
    tallies: dict[str, Tally] = {}
    for at, source in enumerate(slices.sources):
        tally = _tally(intake, limits, slices.pixels[np.array([at])][0])
        tallies[source] = tallies[source] + tally if source in tallies else tally
        on_slice(at + 1, len(slices))
    return dict(sorted(tallies.items()))


def _examples(
    plan: IntakePlan, data: DataChoice | None, stop: threading.Event
) -> tuple[Examples, dict[str, JsonValue]]:
    """Return what is learnt from, and how the story tells it."""
    with counted("drawing phantoms") as on_person:
        examples = drawn_examples(plan.people, plan.seed, on_person, stop)
    told: dict[str, JsonValue] = {"phantoms": plan.people, "phantom_recipe": RECIPE_VERSION}
    if data is None:
        return examples, told
    real = _split_of(data, "train", stop)
    sources: list[JsonValue] = [*sorted(set(real.sources))]
    told["slices"] = {"n": len(real), "sources": sources, "sha256": real.sha256()}
    return examples.concat(real_examples(real.pixels)), told


def _tally(intake: Intake, limits: IntakeLimits, prepared: Frame) -> Tally:
    turned = sum(_is_recognised(intake, limits, prepared, quarters) for quarters in (1, 2, 3))
    mirrored = judge(intake.look(np.ascontiguousarray(prepared[:, ::-1])), limits) is Refusal.MIRRORED
    return Tally(_outcomes(intake, limits, [prepared]), Share(turned, 3), Share(int(mirrored), 1))


def _is_recognised(intake: Intake, limits: IntakeLimits, prepared: Frame, quarters: int) -> bool:
    """Tell whether a slice turned clockwise by so many quarters is refused as rotated or turned back the right way."""
    turned = np.ascontiguousarray(np.rot90(prepared, -quarters))
    view = intake.look(turned)
    refusal = judge(view, limits)
    if refusal is not None:
        return refusal is Refusal.ROTATED
    return np.array_equal(upright(turned, view, limits), prepared)


def _outcomes(intake: Intake, limits: IntakeLimits, pictures: Iterable[Frame]) -> Counter[str]:
    """Count what becomes of pictures: the codes of refusals, READ or TURNED."""
    outcomes: Counter[str] = Counter()
    for prepared in pictures:
        view = intake.look(prepared)
        refusal = judge(view, limits)
        read = READ if upright(prepared, view, limits) is prepared else TURNED
        outcomes[read if refusal is None else str(refusal)] += 1
    return outcomes


def _held_out_scenes(count: int) -> Iterator[Frame]:
    for number in range(count):
        rng = np.random.default_rng([HELD_OUT_SEED, number])
        yield from _prepared(scene_cuts(1, rng, Family.HELD_OUT))


def _pictures_of(folder: Path) -> Iterator[Frame]:
    """Prepare every PNG, JPEG and DICOM file below a folder; what cannot be read is named and left out."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_FILES and path.is_file()):
        try:
            yield from _prepared([decode_image(path.read_bytes())])
        except ImageError as error:
            typer.echo(f"{path}: {error}", err=True)


def _prepared(pictures: Iterable[Frame]) -> Iterator[Frame]:
    """Prepare pictures; those that show nothing are refused before, by `prepare` itself."""
    for picture in pictures:
        with contextlib.suppress(BlankFrameError):
            yield prepare(picture)


def _split_of(data: DataChoice, split: str, stop: threading.Event) -> SliceSet:
    dataset = open_dataset(data.folder, patient_rule=data.patient_rule)
    with counted(f"reading {split} slices") as on_slice:
        return load_split(
            dataset,
            split,
            cache=data.cache,
            on_slice=on_slice,
            on_unreadable=lambda _, error: typer.echo(str(error), err=True),
            stop=stop,
        )


def _show(tallies: Mapping[str, Tally], others: Mapping[str, Counter[str]], console: Console) -> None:
    table = Table("source", "slices", "upright, refused or turned", "turned, recognised", "mirrored, refused")
    for source, tally in (*tallies.items(), ("all", reduce(operator.add, tallies.values()))):
        table.add_row(source, *map(str, (tally.outcomes.total(), tally.refused, tally.turned, tally.mirrored)))
    console.print(table)
    for name, outcomes in others.items():
        passed = outcomes[READ] + outcomes[TURNED]
        refused = Share(outcomes.total() - passed, outcomes.total())
        console.print(f"{name}: {refused} of {outcomes.total()} refused", markup=False, highlight=False)
    console.print("Shares with 95 % intervals over slices, though slices of one patient are alike.", style="dim")
