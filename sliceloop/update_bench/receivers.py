"""A process of simulated edges that only follow releases: real sessions, links and updaters, a folder each."""

import argparse
import json
import logging
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import structlog

from broker.settings import BrokerSettings
from broker.supervised import SupervisedThread
from broker.trusted_keys import load_key_set
from edge_agent.link import Link
from edge_agent.model_slot import ModelSlot
from edge_agent.reading import EdgeIdentity
from edge_agent.settings import EdgeSettings, ReplaySettings
from edge_agent.staging import StagingThread
from edge_agent.trust import EdgeTrust
from edge_agent.updater import Proving
from edge_agent.watch import in_a_thread
from protocol.manifest import Manifest

SITE = "bench"
LOOK_S = 0.2
CHUNK_TIMEOUT_S = 20.0
"""Many edges share two cores here: a chunk takes its time."""


def edge_name(number: int) -> str:
    """Name an edge."""
    return f"edge-{number:03d}"


def main() -> None:
    """Run edges until each runs a release; print when each did, by the machine's monotonic clock, as JSON."""
    parser = argparse.ArgumentParser()
    for name in ("--first", "--count", "--port"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--folder", "--trusted"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    stop, began_s = threading.Event(), time.monotonic()
    done: dict[str, float] = {}
    with ExitStack() as stack:
        slots = {}
        for number in range(options.first, options.first + options.count):
            name = edge_name(number)
            slots[name] = _start(name, options.folder / name, options.trusted, options.port, stop, stack)
        while len(done) < len(slots) and time.monotonic() - began_s < options.timeout_s:
            stop.wait(LOOK_S)
            for name, slot in slots.items():
                if slot.running_version and name not in done:
                    done[name] = time.monotonic()
        stop.set()
    print(json.dumps(done))
    sys.exit(0 if len(done) == options.count else 1)


def _start(name: str, folder: Path, trusted: Path, port: int, stop: threading.Event, stack: ExitStack) -> ModelSlot:
    settings = EdgeSettings(
        site=SITE,
        edge=name,
        data_dir=folder,
        replay=ReplaySettings(folder=folder),
        trusted_keys_dir=trusted,
        chunk_timeout_s=CHUNK_TIMEOUT_S,
        heartbeat_s=30.0,
    )
    keys = load_key_set(trusted, 1)
    trust = EdgeTrust(folder / "trust", keys, site=SITE, edge=name)
    slot = ModelSlot(folder / "models", trust.ever_trusted)
    outbox = stack.enter_context(settings.outbox())
    identity = EdgeIdentity(SITE, name, uuid.uuid4().hex, b"the secret of a simulated site")
    proving = Proving(stack.enter_context(StagingThread()), _untried, in_a_thread)
    link = Link(settings, BrokerSettings(port=port), identity, outbox, slot, trust, proving, "sliceloop bench")
    stack.enter_context(SupervisedThread(f"link-{name}", lambda: link.run(stop, time.monotonic), stop))
    return slot


def _untried(_folder: Path, _manifest: Manifest) -> None:
    """Start no process for the trial, of which fifty at once are no fleet; the slot still reads the golden slices."""


if __name__ == "__main__":
    main()
