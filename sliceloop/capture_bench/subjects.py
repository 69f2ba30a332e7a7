"""The networks of a benchmark, and whether the patients that they are judged on are new to them."""

from dataclasses import dataclass
from pathlib import Path

from protocol.chunks import sha256_of
from sliceloop.capture_bench.origin import NetworkFacts
from sliceloop.capture_bench.slices import Networks
from training.judging.subject import Subject, open_subject
from training.judging.unseen import LeakMark


@dataclass(frozen=True)
class Subjects:
    """The network that is served, and the plain one."""

    served: Subject | None
    plain: Subject | None

    def networks(self) -> Networks:
        """Load both; raises `UnreadableNetworkError`."""
        served, plain = (None if one is None else one.reader() for one in (self.served, self.plain))
        return Networks(served, plain)


def open_subjects(model: Path | None, plain_model: Path | None, out: Path) -> Subjects:
    """Open both bundles; raises what `open_subject` raises."""
    served, plain = (None if path is None else open_subject(path, out) for path in (model, plain_model))
    return Subjects(served, plain)


def network_facts(subject: Subject, leak: LeakMark) -> NetworkFacts:
    """Say which network it is."""
    return NetworkFacts(name=subject.name, sha256=sha256_of(subject.model), leak=leak)
