"""What a run streams and reads with: phantoms and a network of one epoch, made once for a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sliceloop.demo.stage import EDGES
from training.bundle import Bundle, read_bundle, write_bundle
from training.data.labelled import LABELS_FILE, load_slices, read_labels
from training.data.phantom import Cohort, write_phantoms
from training.data.slices import LabelledSlice
from training.learn import learn
from training.networks import build
from training.plan import TrainSettings

COHORTS = (Cohort("site-a", "train", 3, 1), Cohort("site-a", "val", 2, 1), Cohort("site-b", "train", 8, 1))
TEACHER = "phantom-site-a"
ARCHITECTURE, INPUT_PX = "squeezenet1_1_bn", 64
SEED = 7


@dataclass(frozen=True)
class Materials:
    """Phantoms by path, those that teach and those that are streamed, and a network."""

    teachers: tuple[LabelledSlice, ...]
    streamed: tuple[LabelledSlice, ...]
    bundle: Bundle

    def of_edge(self, edge: str) -> Sequence[LabelledSlice]:
        """Return the phantoms whose noisy copies one edge is given."""
        return self.streamed[EDGES.index(edge) :: len(EDGES)]


def make_materials(folder: Path) -> Materials:
    """Draw the phantoms and train the network, about ten seconds; or find both from an earlier run."""
    drawn, network = folder / "phantoms", folder / "network"
    if not (drawn / LABELS_FILE).exists():
        write_phantoms(drawn, list(COHORTS), seed=SEED)
    rows = [
        LabelledSlice(str((drawn / row.file).absolute()), row.label, row.patient_id, row.source, row.split)
        for row in read_labels(drawn)
    ]
    teachers = tuple(row for row in rows if row.source == TEACHER)
    if not network.exists():
        _train(drawn, teachers, network)
    return Materials(teachers, tuple(row for row in rows if row not in teachers), read_bundle(network))


def _train(drawn: Path, teachers: Sequence[LabelledSlice], network: Path) -> None:
    train, val = (load_slices(drawn, [row for row in teachers if row.split == split]) for split in ("train", "val"))
    settings = TrainSettings(epochs=1, batch=4)
    unfinished = network.with_name("network.part")
    write_bundle(unfinished, learn(build(ARCHITECTURE, INPUT_PX), train, val, settings, on_epoch=lambda _: None))
    unfinished.replace(network)
