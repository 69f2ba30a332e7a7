"""From a reading to what taught its network, and from a slice to what it taught; and the page of a release."""

import io
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pytest
from rich.console import Console
from worker_parts import (
    ARCHITECTURE,
    EDGE,
    NOW,
    SITE,
    add_labelled,
    cohort,
    constant_network,
    later,
    network,
    patient_key,
    reading,
    release,
    slice_read,
)

from cloud_worker.card_facts import card_facts
from cloud_worker.ledger import Ledger, UnknownReleaseError
from cloud_worker.lineage import Archive
from cloud_worker.model_card import model_card
from cloud_worker.object_store import ObjectStore, card_key, dataset_key, image_key, upload_key
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.releasing import ReleaseDesk
from cloud_worker.retrain import Side, side_of
from cloud_worker.retraining import Retraining
from cloud_worker.settings import GateSettings, RetrainSettings, WorkerSettings
from protocol.chunks import sha256_of
from protocol.labels import LABELS, Label
from protocol.messages import Disagreement, ModelRef, RetrainRequest, RetrainResult, UploadedFile
from protocol.signing import generate_signer
from sliceloop.lineage_run import origin_plain, slice_plain, slice_tree
from training.evaluate import evaluate

POLICY = RetrainSettings(min_new_labels=3, min_patients_per_class=1)
SETTINGS = WorkerSettings(retrain=POLICY, gate=GateSettings(min_held_back_patients=3))
SIGNER = generate_signer()
PATIENTS = cohort(12)


@dataclass
class Learnt:
    """A worker that went once round the loop: version 2 learnt from labels that disagreements led to."""

    store: ObjectStore
    ledger: Ledger
    request: RetrainRequest
    taught: str
    """A slice of the train side."""
    held_back: str
    """One of a patient whom no training sees."""

    @property
    def archive(self) -> Archive:
        """Look things up."""
        return Archive(self.ledger, self.store)


@pytest.fixture
def learnt(store: ObjectStore, ledger: Ledger) -> Learnt:
    """Label, disagree, request, train, gate and sign."""
    add_labelled(store, ledger, PATIENTS)
    sides = {f"slice-{n}": side_of(patient_key(each.patient), POLICY) for n, each in enumerate(PATIENTS)}
    taught = next(name for name, side in sides.items() if side is Side.TRAIN)
    held_back = next(name for name, side in sides.items() if side is Side.HELD_BACK)
    found = Disagreement(kind="label", reasons=("the readers name different labels",))
    ledger.add_second_reading(taught, reading(Label.COVID_19), found, NOW)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    retraining = Retraining(SETTINGS, store, ledger)
    (request,) = retraining.step(NOW)
    assert isinstance(request, RetrainRequest)
    retraining.take_result(candidate(store, request), later(1))
    retraining.step(later(2))
    desk = ReleaseDesk(ReleaseSettings(), store, ledger, [SIGNER])
    assert [manifest.version for manifest in desk.release_candidates(later(3))] == [2]
    return Learnt(store, ledger, request, taught, held_back)


def candidate(store: ObjectStore, request: RetrainRequest) -> RetrainResult:
    """Put what a trainer uploads, and say so."""
    files = {"model.onnx": network(), "checkpoint.safetensors": b"weights", "report.json": b"{}"}
    for name, data in files.items():
        store.put(upload_key(request.request_id, name), data, "application/octet-stream")
    labels = np.arange(len(LABELS))
    figures = evaluate(np.eye(len(LABELS), dtype=np.float32), labels, [str(n) for n in labels], ["site-a"] * 3)
    return RetrainResult(
        request_id=request.request_id,
        outcome="candidate",
        at=NOW,
        trainer="trainer-test",
        architecture=ARCHITECTURE,
        files={name: UploadedFile(sha256=sha256_of(data), size=len(data)) for name, data in files.items()},
        training_data_sha256="1" * 64,
        split_sha256="2" * 64,
        validation=figures.model_dump(mode="json"),
    )


def read_by(learnt: Learnt, version: int, at: datetime = NOW) -> str:
    """Store a slice that the network of this release reads."""
    of = learnt.ledger.release(version)
    model = ModelRef(name=of.name, version=of.version, sha256=of.sha256)
    said = slice_read(900, reading=reading(Label.PNEUMONIA).model_copy(update={"model": model}))
    key = image_key(said.image_sha256)
    learnt.ledger.store_slice(message_id="m-900", site=SITE, edge=EDGE, slice=said, image_key=key, received_at=at)
    return said.slice_id


def test_a_reading_leads_to_the_disagreements_that_taught_its_network(learnt: Learnt) -> None:
    """Reading, version, release, gate, request, data set, slices, label, reviewer, and why it was looked at."""
    found = learnt.archive.of_slice(read_by(learnt, 2))
    (made_by,) = found.readings
    origin = made_by.origin
    assert origin is not None
    assert (made_by.reader, origin.release.version) == ("edge", 2)
    assert origin.release.gate is not None
    assert (origin.release.gate["accepted"], origin.release.gate["incumbent_version"]) == (True, 1)
    assert origin.training_data_sha256 == "1" * 64
    assert origin.signed_by == (SIGNER.public_key.keyid,)
    lesson = origin.lesson
    assert lesson is not None
    assert lesson.complete
    assert (lesson.request.request_id, lesson.dataset_sha256) == (
        learnt.request.request_id,
        learnt.request.dataset_sha256,
    )
    teachers = {teacher.slice_id: (teacher, split) for teacher, split in lesson.teachers}
    teacher, split = teachers[learnt.taught]
    assert (teacher.disagreement, teacher.reasons) == ("label", ("the readers name different labels",))
    assert split == "train"
    assert learnt.held_back not in teachers
    assert found.taught == ()


def test_a_slice_leads_to_the_releases_that_it_taught(learnt: Learnt) -> None:
    """Back again: its label, the data set, the release; a held-back patient's taught nothing."""
    found = learnt.archive.of_slice(learnt.taught)
    (taught,) = found.taught
    assert (taught.split, taught.versions) == ("train", (2,))
    assert taught.lesson.request.request_id == learnt.request.request_id
    assert {each.reader: each.origin for each in found.readings} == {"edge": None, "second": None}
    assert learnt.archive.of_slice(learnt.held_back).taught == ()


def test_a_picture_that_came_as_two_patients_taught_as_the_one_alone(store: ObjectStore, ledger: Ledger) -> None:
    """Sites know patients by keys of their own: one of them may be held back, and its slice taught nothing."""
    add_labelled(store, ledger, PATIENTS)
    by_side = {side_of(patient_key(each.patient), POLICY): (n, each) for n, each in enumerate(PATIENTS)}
    number, taught = by_side[Side.TRAIN]
    _, held_back = by_side[Side.HELD_BACK]
    twin = slice_read(800, taught.label, held_back.patient, image=slice_read(number, taught.label).image)
    key = image_key(twin.image_sha256)
    ledger.store_slice(message_id="m-800", site=SITE, edge=EDGE, slice=twin, image_key=key, received_at=NOW)
    ledger.set_label(twin.slice_id, taught.label, "dr-test", "test", NOW)
    release(store, ledger, SIGNER, constant_network(Label.NORMAL))
    (request,) = Retraining(SETTINGS, store, ledger).step(NOW)
    assert isinstance(request, RetrainRequest)
    archive = Archive(ledger, store)
    assert [each.split for each in archive.of_slice(f"slice-{number}").taught] == ["train"]
    assert archive.of_slice(twin.slice_id).taught == ()


def test_what_is_shown_names_no_address_and_no_patient(learnt: Learnt) -> None:
    """Presigned addresses are credentials, and a patient's key is nobody's business here."""
    archive = learnt.archive
    found = archive.of_slice(learnt.taught)
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(slice_tree(found))
    console.print(slice_tree(archive.of_slice(read_by(learnt, 2))))
    shown = console.export_text() + str(slice_plain(found)) + str(origin_plain(archive.of_release(2)))
    keys = {patient_key(each.patient) for each in PATIENTS}
    assert "http" not in shown
    assert not [key for key in keys if key in shown]
    assert "research use only" in shown
    assert "disagreement (label): the readers name different labels" in shown


def test_a_data_set_that_is_gone_is_said_to_be(learnt: Learnt) -> None:
    """The ledger then still tells what was labelled by then, and that this is not the list itself."""
    request = learnt.ledger.request(learnt.request.request_id)
    lost = request.message.model_copy(update={"dataset_sha256": "0" * 64})
    learnt.ledger.touch_request(request.request_id, message=lost)
    lesson = learnt.archive.of_release(2).lesson
    assert lesson is not None
    assert (lesson.complete, len(lesson.teachers)) == (False, len(PATIENTS))
    page = model_card(card_facts(learnt.ledger, learnt.store, 2))
    assert "the data set is gone: these were labelled by then, held-back patients too" in page
    with pytest.raises(UnknownReleaseError):
        learnt.archive.of_release(9)
    assert not learnt.store.exists(dataset_key("0" * 64))


def test_the_page_of_a_candidates_release_says_what_the_gate_saw(learnt: Learnt) -> None:
    """Data by label and source, figures with intervals, the comparison with version 1, limits, and the way back."""
    card = learnt.store.get(card_key(2)).decode()
    for text in (
        f"data set of the request: `{learnt.request.dataset_sha256}`",
        "on top of version 1",
        "by source: phantom-a ",
        "looked at because of: label 1, none ",
        "Balanced accuracy **1.000 [1.000, 1.000]**",
        "| site-a | 3 | 3 |",
        "Against version 1, on ",
        "| predecessor | 0.333 [",
        "| this | 1.000 [",
        "Judged on one source: nothing is known of others.",
        "sliceloop withdraw 2 --why REASON",
        SIGNER.public_key.keyid,
    ):
        assert text in card, text
    assert "http" not in card
