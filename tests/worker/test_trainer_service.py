"""The trainer as a process: it learns what it is asked to, uploads it, says so, and outlives what it cannot do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_parts import (
    ARCHITECTURE,
    DEADLINE_S,
    NOW,
    Peer,
    cohort,
    message_of,
    outbound,
    patient_key,
    quick,
    slice_read,
    wait_until,
)

from broker.embedded import EmbeddedBroker, free_port
from broker.messages import Inbound
from cloud_worker.object_store import ObjectStore, dataset_key, image_key, model_key, upload_key
from protocol.chunks import sha256_of
from protocol.labels import LABELS
from protocol.messages import Dataset, DatasetSlice, RetrainPhase, RetrainRequest, RetrainResult, RetrainStatus
from protocol.topics import Kind, cloud_topic
from training.bundle import CHECKPOINT_FILE, MODEL_FILE, REPORT_FILE, Report
from training.checkpoint import dumps, loads
from training.model.reader import Calibration, OnnxReader
from training.networks import build

FILES = (MODEL_FILE, CHECKPOINT_FILE, REPORT_FILE)
ANSWERS = (cloud_topic(Kind.RETRAIN_STATUS), cloud_topic(Kind.RETRAIN_RESULT))
EPOCHS = 2
LONG_EPOCHS = 30
"""Enough to be killed in the middle of."""


def untrained() -> bytes:
    torch.manual_seed(0)
    return dumps(build(ARCHITECTURE, 64))


@dataclass
class Desk:
    """Asks for retrainings as the worker does, and hears the answers."""

    store: ObjectStore
    peer: Peer
    checkpoint: bytes = field(default_factory=untrained)

    def ask(self, request_id: str, dataset: Dataset, **changes: Any) -> RetrainRequest:
        data = dataset.model_dump_json().encode()
        base, listed = model_key(sha256_of(self.checkpoint), CHECKPOINT_FILE), dataset_key(sha256_of(data))
        self.store.put(base, self.checkpoint, "application/octet-stream")
        self.store.put(listed, data, "application/json")
        fields: dict[str, Any] = {
            "request_id": request_id,
            "reason": "test",
            "requested_at": NOW,
            "architecture": ARCHITECTURE,
            "base_version": 1,
            "base_checkpoint_url": self.store.presign_get(base),
            "base_checkpoint_sha256": sha256_of(self.checkpoint),
            "dataset_url": self.store.presign_get(listed),
            "dataset_sha256": sha256_of(data),
            "upload_urls": {name: self.store.presign_put(upload_key(request_id, name)) for name in FILES},
            "seed": 0,
        }
        request = RetrainRequest.model_validate({**fields, **changes})
        self.peer.say(outbound(request, f"ask-{request_id}"))
        return request

    def result(self, request_id: str) -> RetrainResult:
        """Wait for the result of this request; what else was heard stays."""
        heard = self.peer.hear_message(
            Kind.RETRAIN_RESULT, lambda said: said.request_id == request_id, deadline_s=2 * DEADLINE_S
        )
        assert isinstance(heard, RetrainResult)
        return heard

    def statuses(self, request_id: str) -> list[RetrainStatus]:
        """Take out what was said of the progress so far."""
        heard, self.peer.heard = self.peer.heard, []
        said = [message_of(inbound) for inbound in heard]
        return [each for each in said if isinstance(each, RetrainStatus) and each.request_id == request_id]


def listed(store: ObjectStore) -> Dataset:
    """Return a data set of 30 slices, 24 to learn from and 6 to validate on, whose images are in the store."""
    entries = []
    for number, each in enumerate(cohort(10)):
        said = slice_read(number, each.label)
        store.put(image_key(said.image_sha256), said.image, "image/png")
        entries.append(
            DatasetSlice(
                image_sha256=said.image_sha256,
                url=store.presign_get(image_key(said.image_sha256)),
                label=each.label,
                patient_key=patient_key(each.patient),
                source="phantom-a",
                split="val" if number < 2 * len(LABELS) else "train",
            )
        )
    return Dataset(created_at=NOW, slices=tuple(entries))


@contextmanager
def trainer(folder: Path, port: int, epochs: int = EPOCHS) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `sliceloop trainer`; one that still runs is asked to end, and does so cleanly."""
    config = folder / "trainer.toml"
    config.write_text(
        f"[broker]\nport = {port}\nreconnect_max_s = 1.0\n"
        f"[trainer]\nwork_dir = '{folder / 'work'}'\ndownload_timeout_s = 5\n"
        f"training = {{ epochs = {epochs}, batch = 8 }}\n"
    )
    with (folder / "trainer.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "sliceloop", "trainer", "-c", str(config)], stderr=log)
    try:
        yield process
        if process.poll() is None:
            process.terminate()
            assert process.wait(DEADLINE_S) == 0, (folder / "trainer.log").read_text()
    finally:
        process.kill()
        process.wait()


@dataclass
class Service:
    """A trainer at work and the desk that asks it."""

    desk: Desk
    work_dir: Path
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def service(shared_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One trainer for all requests: each also shows that the one before did no harm."""
    folder = tmp_path_factory.mktemp("trainer")
    with (
        EmbeddedBroker() as broker,
        Peer(quick(broker.port), *ANSWERS) as peer,
        trainer(folder, broker.port) as process,
    ):
        desk = Desk(shared_store, peer)
        yield Service(started(desk), folder / "work", process)


def started(desk: Desk, request_id: str = "first") -> Desk:
    """Return the desk once a trainer listens: asked for what cannot be, it says so."""
    request = desk.ask(request_id, Dataset(created_at=NOW, slices=()), dataset_sha256="0" * 64)

    def answered(heard: Inbound) -> bool:
        return heard.topic == cloud_topic(Kind.RETRAIN_RESULT) and message_of(heard).request_id == request_id

    desk.peer.ask(outbound(request, f"again-{request_id}"), answered)
    return desk


@pytest.mark.e2e
def test_a_retraining_ends_in_a_candidate_and_is_not_done_twice(service: Service) -> None:
    """Progress is said, the uploads are what the result says, and the same request again is answered at once."""
    desk = service.desk
    request = desk.ask("r-1", listed(desk.store))
    first = desk.result("r-1")
    assert (first.outcome, first.reason, first.architecture) == ("candidate", "", ARCHITECTURE)
    said = desk.statuses("r-1")
    phases = list(dict.fromkeys(status.phase for status in said))
    assert phases == list(RetrainPhase)
    assert list(dict.fromkeys(status.epoch for status in said if status.epoch)) == [1, 2]
    assert said[-2].fraction == 1
    uploads = {name: desk.store.get(upload_key("r-1", name)) for name in FILES}
    assert {name: (file.sha256, file.size) for name, file in first.files.items()} == {
        name: (sha256_of(data), len(data)) for name, data in uploads.items()
    }
    OnnxReader(uploads[MODEL_FILE], Calibration())
    assert loads(uploads[CHECKPOINT_FILE])[0].architecture == ARCHITECTURE
    report = Report.model_validate_json(uploads[REPORT_FILE])
    assert (report.n_train_slices, report.n_train_patients, report.validation.n_slices) == (24, 24, 6)
    assert (first.training_data_sha256, first.temperature) == (report.training_data_sha256, report.temperature)

    desk.peer.say(outbound(request, "again"))
    second = desk.result("r-1")
    assert second.files == first.files
    assert [status.phase for status in desk.statuses("r-1")] == [RetrainPhase.ACCEPTED, RetrainPhase.EXPORTING]


def closed_port() -> str:
    return f"http://127.0.0.1:{free_port()}/nothing?X-Amz-Signature=secret"


UNANSWERABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another data set": ({"dataset_sha256": "0" * 64}, "dataset.json has another SHA-256"),
    "another checkpoint": ({"base_checkpoint_sha256": "0" * 64}, "base.safetensors has another SHA-256"),
    "nobody there": ({"dataset_url": closed_port()}, "dataset.json cannot be fetched"),
    "no such object": ({}, "dataset.json cannot be fetched"),
    "no address": ({"base_checkpoint_url": "http://[?X-Amz-Signature=secret"}, "base.safetensors cannot be fetched"),
    "no port": ({"base_checkpoint_url": "http://h:x/?X-Amz-Signature=secret"}, "base.safetensors cannot be fetched"),
    "a space": ({"base_checkpoint_url": "http://h/ ?X-Amz-Signature=secret"}, "base.safetensors cannot be fetched"),
}


@pytest.mark.e2e
@pytest.mark.parametrize(("changes", "reason"), UNANSWERABLE.values(), ids=UNANSWERABLE)
def test_what_cannot_be_fetched_fails_with_its_reason(service: Service, changes: dict[str, Any], reason: str) -> None:
    """A request whose files cannot be had, or are others, fails; the reason names the file and never the URL."""
    desk, request_id = service.desk, f"bad-{list(UNANSWERABLE.values()).index((changes, reason))}"
    missing = desk.store.presign_get(dataset_key("9" * 64))
    desk.ask(request_id, Dataset(created_at=NOW, slices=()), **(changes or {"dataset_url": missing}))
    result = desk.result(request_id)
    assert result.outcome == "failed"
    assert reason in result.reason
    assert "Signature" not in result.reason
    assert service.process.poll() is None


@pytest.mark.e2e
def test_a_patient_on_both_sides_fails_as_a_leak(service: Service) -> None:
    """A data set with one patient to learn from and to validate on is refused before anything is learnt."""
    desk = service.desk
    good = listed(desk.store)
    leaked = good.slices[0].model_copy(update={"split": "train"})
    desk.ask("leak", good.model_copy(update={"slices": (*good.slices, leaked)}))
    result = desk.result("leak")
    assert result.outcome == "failed"
    assert "training refused: LeakError: 1 patients on two sides" in result.reason
    assert leaked.patient_key not in result.reason
    assert result.files == {}


@pytest.mark.e2e
def test_a_trainer_killed_in_the_middle_goes_on_where_it_was(shared_store: ObjectStore, tmp_path: Path) -> None:
    """After kill -9 the job ends too; a new trainer, asked again, finishes without learning an epoch twice."""
    with EmbeddedBroker() as broker, Peer(quick(broker.port), *ANSWERS) as peer:
        with trainer(tmp_path, broker.port, LONG_EPOCHS) as process:
            desk = started(Desk(shared_store, peer))
            request = desk.ask("r-9", listed(shared_store))
            peer.hear_message(Kind.RETRAIN_STATUS, lambda said: said.request_id == "r-9" and said.epoch >= 2)
            (job,) = children(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        wait_until(lambda: not Path(f"/proc/{job}").exists(), "the job ends with its trainer")
        assert not (tmp_path / "work" / "r-9" / "bundle" / REPORT_FILE).exists()
        with trainer(tmp_path, broker.port, LONG_EPOCHS):
            started(desk, "second")
            peer.heard.clear()
            peer.say(outbound(request, "again"))
            assert desk.result("r-9").outcome == "candidate"
        epochs = list(dict.fromkeys(status.epoch for status in desk.statuses("r-9") if status.epoch))
        assert epochs == list(range(epochs[0], LONG_EPOCHS + 1))
        assert epochs[0] > 2


def children(pid: int) -> list[int]:
    """Return the processes that this one started (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
