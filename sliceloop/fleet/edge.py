"""One simulated edge: a real outbox, link and session; its slices come from a mill at its own pace."""

import random
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from edge_agent.link import Link
from edge_agent.model_slot import ModelSlot
from edge_agent.outbox import OutboxError
from edge_agent.reading import EdgeIdentity
from edge_agent.settings import EdgeSettings, ReplaySettings
from edge_agent.staging import StagingThread
from edge_agent.trust import EdgeTrust
from edge_agent.updater import Proving
from edge_agent.watch import in_a_thread
from protocol.manifest import Manifest
from protocol.rotation import KeySet
from protocol.signing import TrustedKeys, generate_signer
from sliceloop.fleet.mill import Mill
from sliceloop.fleet.stopwatch import TimedOutbox

SITE = "simulated"
SOFTWARE = "sliceloop fleet"
MAX_OUTBOX_ROWS, MAX_OUTBOX_BYTES = 1_000_000, 64 * 1024**3
"""Days of an outage."""
STOP_S = 0.2
"""How often an edge that waits for receipts looks whether it is to stop."""
RETRY_S = 0.5
"""After the outbox was full."""


@dataclass(frozen=True)
class Pace:
    """When an edge captures: every `interval_s` (0: as soon as fewer than `max_waiting` wait), `slices` in all."""

    interval_s: float
    slices: int
    max_waiting: int


class SimulatedEdge:
    """Runs from `with` on; `captured`, `refused` and the outbox's times say how it went."""

    def __init__(self, name: str, folder: Path, broker: BrokerSettings, pngs: list[bytes], with_frames: bool) -> None:
        """Remember who it is; it trusts no release, and reports so."""
        self.settings = EdgeSettings(
            site=SITE,
            edge=name,
            data_dir=folder,
            replay=ReplaySettings(folder=folder),
            trusted_keys_dir=folder,
            max_outbox_rows=MAX_OUTBOX_ROWS,
            max_outbox_bytes=MAX_OUTBOX_BYTES,
        )
        identity = EdgeIdentity(SITE, name, uuid.uuid4().hex, b"the secret of a simulated site")
        self.outbox = TimedOutbox(
            folder / "outbox.sqlite",
            max_rows=self.settings.max_outbox_rows,
            max_bytes=self.settings.max_outbox_bytes,
        )
        keys = TrustedKeys((generate_signer().public_key,))
        self._trust = EdgeTrust(folder / "trust", KeySet(keys, keys), site=SITE, edge=name)
        slot = ModelSlot(folder / "models", self._trust.ever_trusted, threads=1)
        self._mill = Mill(pngs, identity, with_frames=with_frames)
        self._broker, self._identity, self._slot = broker, identity, slot
        self._enough = threading.Event()
        self.captured = self.refused = 0

    def enough(self) -> None:
        """Capture no more; what waits is still sent."""
        self._enough.set()

    def run(self, pace: Pace, stop: threading.Event, rng: random.Random) -> None:
        """Capture and send until all is captured, then send until the stop."""
        with self.outbox:
            proving = Proving(StagingThread(), _never_tried, in_a_thread)
            link = Link(
                self.settings,
                self._broker,
                self._identity,
                self.outbox,
                self._slot,
                self._trust,
                proving,
                SOFTWARE,
            )
            with SupervisedThread(f"link-{self.settings.edge}", lambda: link.run(stop, time.monotonic), stop):
                self._capture_all(pace, link, stop, rng)
                stop.wait()

    def _capture_all(self, pace: Pace, link: Link, stop: threading.Event, rng: random.Random) -> None:
        next_s = time.monotonic() + rng.uniform(0, pace.interval_s)
        while self.captured < pace.slices and not (stop.is_set() or self._enough.is_set()):
            if pace.interval_s == 0 and not self.outbox.wait_below(pace.max_waiting, STOP_S):
                continue
            stop.wait(max(0.0, next_s - time.monotonic()))
            if stop.is_set():
                return
            if self._capture():
                link.session.nudge()
            else:
                stop.wait(RETRY_S)
            next_s += pace.interval_s

    def _capture(self) -> bool:
        begun_s = time.monotonic()
        sequence = self.outbox.last_sequence() + 1
        slice_id, messages = self._mill.messages(sequence)
        self.outbox.begin(slice_id, begun_s, messages)
        try:
            self.outbox.add(f"simulated/{slice_id}", slice_id, sequence, messages)
        except OutboxError:
            self.outbox.forget(slice_id, messages)
            self.refused += 1
            return False
        self.captured += 1
        return True


def _never_tried(_folder: Path, _manifest: Manifest) -> None:
    """Do nothing: no release is trusted here."""
