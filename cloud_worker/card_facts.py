"""What a model card says, looked up in ledger and object store."""

from collections import Counter

from pydantic import ValidationError

from cloud_worker.ledger import Ledger, Release
from cloud_worker.lineage import Archive, Origin, gate_words
from cloud_worker.model_card import CardFacts, Learnt
from cloud_worker.object_store import ObjectStore
from protocol.manifest import shown_manifest
from training.evaluate import Evaluation


def card_facts(ledger: Ledger, store: ObjectStore, version: int) -> CardFacts:
    """Collect them for one release; raises `UnknownReleaseError`."""
    origin = Archive(ledger, store).of_release(version)
    release = origin.release
    request = origin.lesson.request if origin.lesson else None
    return CardFacts(
        manifest=shown_manifest(release.envelope),
        state=origin.state,
        signed_by=origin.signed_by,
        gate=release.gate or {},
        let_through=gate_words(release.gate),
        asked_because=request.reason if request else "",
        base_version=request.base_version if request else None,
        learnt=_learnt(origin),
        validation=_validation(ledger, release),
    )


def _learnt(origin: Origin) -> Learnt | None:
    if origin.lesson is None:
        return None
    teachers = [teacher for teacher, split in origin.lesson.teachers if split in ("train", "")]
    return Learnt(
        dataset_sha256=origin.lesson.dataset_sha256,
        complete=origin.lesson.complete,
        slices=len(teachers),
        patients=len({teacher.patient_key for teacher in teachers}),
        by_label=dict(Counter(str(teacher.label) for teacher in teachers)),
        by_source=dict(Counter(teacher.source for teacher in teachers)),
        by_disagreement=dict(Counter(teacher.disagreement or "none" for teacher in teachers)),
    )


def _validation(ledger: Ledger, release: Release) -> Evaluation | None:
    """Return the trainer's own figures: a candidate's, or those that were signed with a release by hand."""
    said = shown_manifest(release.envelope).metrics.get("validation")
    for candidate in ledger.candidates() if release.request_id else ():
        if candidate.request_id == release.request_id:
            said = candidate.validation
    try:
        return Evaluation.model_validate(said)
    except ValidationError:
        return None
