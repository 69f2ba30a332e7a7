"""A real edge is killed with -9 at random moments of its updates: it has a good model again, and finishes them."""

import random
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_parts import network, wait_until
from onnx import numpy_helper

from broker.embedded import EmbeddedBroker
from broker.settings import BrokerSettings
from protocol.messages import ModelPhase
from sliceloop.demo.processes import Processes
from sliceloop.update_bench.cloud import BenchCloud
from sliceloop.update_bench.feed import Feed, draw
from sliceloop.update_bench.swaps import EDGE, SITE, write_config

LONGEST_S = 3.0
"""An update takes some two seconds here; the dice reach beyond its end."""
DEADLINE_S = 60.0
AWS_LIMIT_BYTES = 128 * 1024
"""No message of an update is larger; the session refuses to publish one that is."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def grown(version: int) -> bytes:
    """Return a network of half a megabyte that is another one for each version, and answers alike."""
    model = onnx.load_from_string(network((0.0, 0.5, 3.0)))
    noise = np.random.default_rng(version).normal(size=120_000).astype(np.float32)
    model.graph.initializer.insert(0, numpy_helper.from_array(noise, "ballast"))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.chaos)])
def test_an_edge_killed_in_the_midst_of_updates_finishes_them(tmp_path: Path, kills: int) -> None:
    """Each life ends at a random moment; each update ends well; no slice is missing, doubled, or read by a stranger."""
    dice = random.Random(7)
    with (
        EmbeddedBroker(folder=tmp_path / "broker") as broker,
        BenchCloud(BrokerSettings(port=broker.port, max_payload_bytes=AWS_LIMIT_BYTES), tmp_path / "keys") as cloud,
        Processes(tmp_path / "logs") as processes,
        Feed(tmp_path / "inbox", draw(tmp_path / "pictures", 0)) as feed,
    ):
        config = write_config(tmp_path, broker.port, cloud.trusted, shadow_slices=2, probation_slices=3)
        processes.start(EDGE, ["sliceloop", "edge", "--config", str(config), "--log-level", "info"])
        hashes = {}
        for version in range(1, kills + 2):
            made = cloud.release(grown(version), version)
            hashes[version] = made.manifest.model_ref.sha256
            cloud.assign(made, SITE, EDGE)
            if version > 1:
                threading.Event().wait(dice.uniform(0.0, LONGEST_S))  # a moment, not a condition
                processes.kill(EDGE)
                processes.restart(EDGE)

            def active(wanted: int = version) -> bool:
                feed.was_read(len(cloud.readings))
                said = [report for _, report in cloud.reports]
                refused = [r for r in said if r.phase in (ModelPhase.REJECTED, ModelPhase.ROLLED_BACK)]
                assert not refused, refused[0].reason
                last = said[-1] if said else None
                return last is not None and last.phase is ModelPhase.ACTIVE and last.desired_version == wanted

            wait_until(active, lambda: str(list(cloud.reports)[-1:]), DEADLINE_S)
        feed.end()
        wait_until(lambda: len({h.sequence for h in cloud.readings}) >= feed.given, "all slices", DEADLINE_S)
        assert {heard.sequence for heard in cloud.readings} == set(range(1, feed.given + 1))
        for heard in cloud.readings:
            assert heard.reading.model.sha256 == hashes[heard.reading.model.version]
