"""`sliceloop lineage`: from a reading to what taught the network, and from a slice to what it taught."""

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from cloud_worker.ledger import Ledger
from cloud_worker.lineage import Archive, Lesson, Origin, SliceLineage, Taught, gate_words, moment
from cloud_worker.object_store import ObjectStore
from sliceloop.release_run import Places

NOTICE = "research use only"
SHOWN_TEACHERS = 20
DIGITS = 12


def show_slice(places: Places, slice_id: str, *, as_json: bool) -> None:
    """Print a slice's lineage, both ways."""
    with Ledger(places.ledger_url) as ledger:
        found = Archive(ledger, ObjectStore(places.s3)).of_slice(slice_id)
    _print(slice_plain(found), slice_tree(found), as_json)


def show_release(places: Places, version: int, *, as_json: bool) -> None:
    """Print what a release was made of."""
    with Ledger(places.ledger_url) as ledger:
        found = Archive(ledger, ObjectStore(places.s3)).of_release(version)
    tree = Tree(_text(f"release {version} — {NOTICE}"))
    _add_origin(tree, found)
    _print({"notice": NOTICE, "release": origin_plain(found)}, tree, as_json)


def slice_plain(found: SliceLineage) -> dict[str, Any]:
    """Return a slice's lineage as plain values."""
    stored = found.slice
    return {
        "notice": NOTICE,
        "slice": {
            "slice_id": stored.slice_id,
            "site": stored.site,
            "edge": stored.edge,
            "captured_at": stored.captured_at.isoformat(),
            "source": stored.source,
            "image_sha256": stored.image_sha256,
        },
        "readings": [
            {
                "reader": each.reader,
                "label": each.reading.label,
                "uncertain": each.reading.uncertain,
                "confidence": each.reading.confidence,
                "model": each.reading.model.model_dump(mode="json"),
                "release": origin_plain(each.origin) if each.origin else None,
            }
            for each in found.readings
        ],
        "disagreement": found.disagreement.model_dump(mode="json") if found.disagreement else None,
        "labels": [
            {"label": each.label, "reviewer": each.reviewer, "why": each.why, "at": each.at.isoformat()}
            for each in found.labels
        ],
        "taught": [_taught_plain(each) for each in found.taught],
    }


def origin_plain(found: Origin) -> dict[str, Any]:
    """Return what a release was made of as plain values; no address, no patient."""
    release = found.release
    return {
        "version": release.version,
        "name": release.name,
        "sha256": release.sha256,
        "released_at": release.released_at.isoformat(),
        "state": found.state,
        "signed_by": list(found.signed_by),
        "gate": release.gate,
        "training_data_sha256": found.training_data_sha256,
        "split_sha256": found.split_sha256,
        "lesson": _lesson_plain(found.lesson) if found.lesson else None,
    }


def slice_tree(found: SliceLineage) -> Tree:
    """Draw a slice's lineage."""
    stored = found.slice
    tree = Tree(_text(f"slice {stored.slice_id} of {stored.site}/{stored.edge}, {stored.source} — {NOTICE}"))
    for each in found.readings:
        reading, model = each.reading, each.reading.model
        word = "uncertain" if reading.uncertain else str(reading.label)
        line = f"{each.reader} reads {word} ({reading.confidence:.2f}) by {model.name} version {model.version}"
        branch = tree.add(_text(f"{line}, sha256 {model.sha256[:DIGITS]}"))
        if each.origin is None:
            branch.add(_text("a network that was not released here"))
        else:
            _add_origin(branch, each.origin)
    if found.disagreement is not None:
        tree.add(_text(f"disagreement ({found.disagreement.kind}): {'; '.join(found.disagreement.reasons)}"))
    for label in found.labels:
        tree.add(_text(f"labelled {label.label} by {label.reviewer}, {moment(label.at)}"))
    taught = tree.add(_text("taught" if found.taught else "taught nothing"))
    for lesson in found.taught:
        versions = ", ".join(f"release {version}" for version in lesson.versions) or "no release"
        asked = lesson.lesson.request
        taught.add(
            _text(
                f"as {lesson.label} ({lesson.split or 'labelled by then'}) in data set "
                f"{lesson.lesson.dataset_sha256[:DIGITS]} of request {asked.request_id[:DIGITS]}: {versions}"
            )
        )
    return tree


def _add_origin(tree: Tree, found: Origin) -> None:
    release = found.release
    keys = ", ".join(each[:DIGITS] for each in found.signed_by)
    branch = tree.add(_text(f"release {release.version} ({found.state}), {moment(release.released_at)}, keys {keys}"))
    branch.add(_text(f"gate: {gate_words(release.gate)}"))
    branch.add(_text(f"training data {found.training_data_sha256 or 'not told'}"))
    if found.lesson is None:
        branch.add(_text("by hand: no request, so no slice of this ledger is known to have taught it"))
        return
    _add_lesson(branch, found.lesson)


def _add_lesson(tree: Tree, lesson: Lesson) -> None:
    asked = lesson.request
    branch = tree.add(_text(f"request {asked.request_id}, {moment(asked.requested_at)}: {asked.reason}"))
    branch.add(_text(f"from version {asked.base_version}"))
    doubt = "" if lesson.complete else " (it is gone: these were labelled by then)"
    data = branch.add(_text(f"data set {lesson.dataset_sha256}: {len(lesson.teachers)} slices{doubt}"))
    why = Counter(teacher.disagreement or "no disagreement" for teacher, _ in lesson.teachers)
    data.add(_text("looked at because of: " + ", ".join(f"{kind} {count}" for kind, count in why.most_common())))
    for teacher, split in lesson.teachers[:SHOWN_TEACHERS]:
        reasons = f"; {'; '.join(teacher.reasons)}" if teacher.reasons else ""
        line = f"{teacher.slice_id} {teacher.label} by {teacher.reviewer} ({split or 'split not known'})"
        data.add(_text(f"{line}, {teacher.disagreement or 'no disagreement'}{reasons}"))
    if len(lesson.teachers) > SHOWN_TEACHERS:
        data.add(_text(f"and {len(lesson.teachers) - SHOWN_TEACHERS} more: --json lists them"))


def _lesson_plain(lesson: Lesson) -> dict[str, Any]:
    asked = lesson.request
    return {
        "request_id": asked.request_id,
        "reason": asked.reason,
        "requested_at": asked.requested_at.isoformat(),
        "base_version": asked.base_version,
        "dataset_sha256": lesson.dataset_sha256,
        "complete": lesson.complete,
        "slices": [
            {
                "slice_id": teacher.slice_id,
                "image_sha256": teacher.image_sha256,
                "source": teacher.source,
                "label": teacher.label,
                "reviewer": teacher.reviewer,
                "split": split,
                "disagreement": teacher.disagreement,
                "reasons": list(teacher.reasons),
            }
            for teacher, split in lesson.teachers
        ],
    }


def _taught_plain(taught: Taught) -> dict[str, Any]:
    return {
        "request_id": taught.lesson.request.request_id,
        "dataset_sha256": taught.lesson.dataset_sha256,
        "label": taught.label,
        "split": taught.split,
        "releases": list(taught.versions),
    }


def _print(plain: dict[str, Any], tree: Tree, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plain, indent=2, default=str))
    else:
        Console().print(tree)


def _text(line: str) -> Text:
    return Text(line)
