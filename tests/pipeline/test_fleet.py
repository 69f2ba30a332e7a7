"""A simulated fleet speaks the real protocol: what it captures is stored, once, by a real worker."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from PIL import Image
from typer.testing import CliRunner

from broker.embedded import free_port
from broker.settings import BrokerSettings
from cloud_worker.ledger import Ledger
from cloud_worker.object_store import ObjectStore
from protocol.chunks import sha256_of
from protocol.codec import decode, decode_frame
from protocol.messages import SliceRead
from protocol.topics import Kind
from sliceloop.cli import app
from sliceloop.fleet.edge import Pace
from sliceloop.fleet.mill import Mill, draw_pngs
from sliceloop.fleet.run import FleetPlan, run_fleet
from sliceloop.pipeline.stage import Stage, staged
from training.model.decode import decode_image

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Undo what a command does to this process's logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def pngs() -> list[bytes]:
    """The phantoms that the slices vary."""
    return draw_pngs(0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Broker, S3 server and a worker at work."""
    with staged(tmp_path_factory.mktemp("stage") / "parts") as stage:
        stage.start_worker("worker-1")
        yield stage


def test_no_two_slices_of_a_mill_are_the_same(pngs: list[bytes]) -> None:
    """Every slice has bytes of its own and shows the phantom; its messages are what an edge says."""
    mill = Mill.of_floor(pngs)
    said = [
        decode(Kind.SLICE, m.payload, m.user_properties).message for n in range(40) for m in mill.messages(n + 1)[1]
    ]
    images = [each.image for each in said if isinstance(each, SliceRead)]
    assert len(set(images)) == 40
    assert (decode_image(images[0]) == decode_image(pngs[0])).all()
    assert (decode_image(images[len(pngs)]) == decode_image(pngs[0])).all()


def test_an_original_goes_with_its_slice_where_it_is_asked_for(pngs: list[bytes]) -> None:
    """With frames each slice has a second message, whose bytes are another and have the stated hash."""
    mill = Mill(pngs, Mill.of_floor(pngs).identity, with_frames=True)
    slice_id, (read, captured) = mill.messages(1)
    said = decode(Kind.SLICE, read.payload, read.user_properties).message
    frame = decode_frame(captured.payload, captured.user_properties).frame
    assert isinstance(said, SliceRead)
    assert (said.slice_id, frame.slice_id, said.frame_sha256) == (slice_id, slice_id, sha256_of(captured.payload))
    assert said.image != frame.data


@pytest.mark.parametrize("with_frames", [False, True])
def test_what_a_fleet_captures_is_stored_once(stage: Stage, *, with_frames: bool) -> None:
    """Every slice of every edge gets its receipts, is in the ledger under its number, and its object has its hash."""
    plan = FleetPlan(5, Pace(0, 8, 4), with_frames, LIMIT_S)
    folder = stage.folder / f"fleet-{with_frames}"
    with Ledger(stage.ledger_url) as ledger:
        before = ledger.counts()
        report = run_fleet(plan, stage.broker, folder, threading.Event())
        after = ledger.counts()
        assert (report.captured, report.receipted, report.waiting, report.refused) == (40, 40, 0, 0)
        assert after["slices"] - before["slices"] == 40
        assert after["frames"] - before["frames"] == 40 * with_frames
        assert after["dead_letters"] == 0
        store = ObjectStore(stage.s3)
        for stored in ledger.slices_without("second", limit=1000):
            assert sha256_of(store.get(stored.image_key)) == stored.image_sha256
    assert report.latency is not None and 0 < report.latency.p50_ms <= report.latency.p99_ms <= report.latency.max_ms


def test_what_a_fleet_could_not_send_goes_with_the_next_run(stage: Stage, tmp_path: Path) -> None:
    """Slices captured with the broker away stay in the outboxes; a second run on the same folder sends them."""
    nowhere = BrokerSettings(port=free_port(), reconnect_min_s=0.1, reconnect_max_s=0.2)
    alone = run_fleet(FleetPlan(2, Pace(0.01, 5, 4), False, 2.0), nowhere, tmp_path, threading.Event())
    assert (alone.captured, alone.receipted) == (10, 0)
    with Ledger(stage.ledger_url) as ledger:
        before = ledger.counts()["slices"]
        run_fleet(FleetPlan(2, Pace(0, 1, 4), False, LIMIT_S), stage.broker, tmp_path, threading.Event())
        assert ledger.counts()["slices"] - before >= 2


def test_the_command_says_what_waits(tmp_path: Path) -> None:
    """`sliceloop fleet` without a broker ends after its limit, writes its figures, and does not end well."""
    config = tmp_path / "fleet.toml"
    config.write_text(f"[broker]\nport = {free_port()}\n")
    figures = tmp_path / "fleet.json"
    arguments = ["--edges", "2", "--slices", "1", "--interval-s", "0", "--limit-s", "1", "--json", str(figures)]
    ended = CliRunner().invoke(app, ["fleet", *arguments, "--folder", str(tmp_path / "edges"), "-c", str(config)])
    assert ended.exit_code == 1
    assert json.loads(figures.read_text())["waiting"] == 2


@pytest.mark.chaos  # CI does the same by `make bench`
def test_the_bench_measures_floors_pipeline_outage_and_memory(tmp_path: Path) -> None:
    """`bench pipeline` in small: every part is measured, all that was captured has its receipt, a plot is drawn."""
    figures, plot = tmp_path / "pipeline.json", tmp_path / "pipeline.png"
    small = ["--edges", "2", "--slices", "32", "--cut-s", "1", "--soak", "64", "--steady-s", "2"]
    folder = ["--folder", str(tmp_path / "bench")]
    ended = CliRunner().invoke(app, ["bench", "pipeline", *small, *folder, "--json", str(figures), "--plot", str(plot)])
    assert ended.exit_code == 0, ended.output
    result = json.loads(figures.read_text())
    (point,) = result["points"]
    assert all(speed > 0 for speed in point["floors"].values())
    assert point["full"]["receipted"] == 32
    assert point["half"]["waiting"] == 0
    assert result["outage"]["backlog"] > 0
    assert result["outage"]["unreceipted"] == 0
    assert result["soak"]["slices"] == 64
    with Image.open(plot) as picture:
        assert picture.width > 1000
