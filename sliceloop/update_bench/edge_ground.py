"""A real edge process that reads as fast as it can, a broker and a cloud: the ground of swaps and of timed updates."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from broker.embedded import EmbeddedBroker
from broker.settings import BrokerSettings
from cloud_worker.release import Release
from protocol.messages import ModelPhase
from sliceloop.demo.processes import Processes
from sliceloop.update_bench.cloud import BenchCloud
from sliceloop.update_bench.feed import Feed, draw

SITE, EDGE = "bench", "edge-1"
TIMEOUT_S = 120.0
STEP_S = 0.05
SHADOW_SLICES, KEPT_SLICES, PROBATION_SLICES = 3, 1, 5
REFUSED = frozenset({ModelPhase.REJECTED, ModelPhase.ROLLED_BACK})
PROVEN = (ModelPhase.ACTIVE,)
IN_USE = (ModelPhase.PROBATION, ModelPhase.ACTIVE)


class StuckError(RuntimeError):
    """The edge did not run the release in time."""


@dataclass
class EdgeGround:
    """What runs, and when the edge was told to run what."""

    cloud: BenchCloud
    feed: Feed
    processes: Processes
    timeout_s: float
    _assigned_at: dict[int, datetime] = field(default_factory=dict)

    def wait_for_edge(self) -> None:
        """Wait until the edge is connected; raises `StuckError`."""
        self._wait(lambda: bool(self.cloud.reports))

    def update(self, made: Release) -> None:
        """Assign a release, and wait until the edge has proven it; raises `StuckError`."""
        version = made.manifest.version
        self._assigned_at[version] = datetime.now(UTC)
        self.cloud.assign(made, SITE, EDGE)
        self._wait(lambda: self._is_active(version))

    def seconds_to(self, version: int, *phases: ModelPhase) -> float:
        """Return how long after the assignment the edge said that the version runs in one of the phases."""
        said_at = next(
            at
            for at, report in list(self.cloud.reports)
            if report.phase in phases and report.running is not None and report.running.version == version
        )
        return (said_at - self._assigned_at[version]).total_seconds()

    def end(self) -> None:
        """Give no more slices, and wait for the readings of those that were given."""
        self.feed.end()
        self._wait(lambda: len(self.cloud.readings) >= self.feed.given)

    def _is_active(self, version: int) -> bool:
        if not self.cloud.reports:
            return False
        last = self.cloud.reports[-1][1]
        if last.phase in REFUSED:
            raise StuckError(f"the edge refuses release {last.desired_version}: {last.reason}")
        return last.phase is ModelPhase.ACTIVE and last.running is not None and last.running.version == version

    def _wait(self, condition: Callable[[], bool]) -> None:
        never, until_s = threading.Event(), time.monotonic() + self.timeout_s
        while not condition():
            if time.monotonic() > until_s:
                last = list(self.cloud.reports)[-1:]
                raise StuckError(f"nothing within {self.timeout_s:g} s; last report: {last}")
            self.processes.check()
            self.feed.was_read(len(self.cloud.readings))
            never.wait(STEP_S)


@contextmanager
def edge_ground(folder: Path, seed: int, timeout_s: float = TIMEOUT_S) -> Iterator[EdgeGround]:
    """Start everything in an empty folder; the edge has no model yet."""
    pictures = draw(folder / "pictures", seed)
    with EmbeddedBroker(folder=folder / "broker") as broker:
        settings = BrokerSettings(port=broker.port)
        with (
            BenchCloud(settings, folder / "keys") as cloud,
            Processes(folder / "logs") as processes,
            Feed(folder / "inbox", pictures) as feed,
        ):
            config = write_config(folder, broker.port, cloud.trusted)
            processes.start(EDGE, ["sliceloop", "edge", "--config", str(config), "--log-level", "warning"])
            ground = EdgeGround(cloud, feed, processes, timeout_s)
            ground.wait_for_edge()
            yield ground


def write_config(folder: Path, port: int, trusted: Path, **more: object) -> Path:
    """Write the configuration of an edge that reads as fast as it can."""
    edge = {
        "site": f'"{SITE}"',
        "edge": f'"{EDGE}"',
        "data_dir": f'"{folder / "data"}"',
        "trusted_keys_dir": f'"{trusted}"',
        "send_originals": "false",
        "shadow_slices": SHADOW_SLICES,
        "kept_slices": KEPT_SLICES,
        "probation_slices": PROBATION_SLICES,
        **more,
    }
    lines = ["[edge]", *(f"{name} = {value}" for name, value in edge.items())]
    lines += ["[edge.replay]", f'folder = "{folder / "inbox"}"', "interval_s = 0.0", "[broker]", f"port = {port}"]
    path = folder / "edge.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
