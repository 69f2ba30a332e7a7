"""The page of a release: what it learnt from, what it is worth and where, its limits, and how to take it back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.manifest import Manifest
from training.evaluate import Estimate, Evaluation

SMALL = 30
"""Patients; with fewer an interval says little."""


@dataclass(frozen=True)
class Learnt:
    """The labelled slices of a retraining; where its data set is gone, all that were labelled by then."""

    dataset_sha256: str
    complete: bool
    slices: int
    patients: int
    by_label: Mapping[str, int]
    by_source: Mapping[str, int]
    by_disagreement: Mapping[str, int]


@dataclass(frozen=True)
class CardFacts:
    """What is known of a release; the figures are the trainer's (`validation`) and the gate's."""

    manifest: Manifest
    state: str
    signed_by: tuple[str, ...]
    gate: Mapping[str, Any]
    let_through: str
    asked_because: str
    base_version: int | None
    learnt: Learnt | None
    validation: Evaluation | None


class _Judged(BaseModel):
    """The gate's figures, as far as the card shows them."""

    model_config = ConfigDict(extra="ignore")
    n_slices: int
    n_patients: int
    incumbent: Estimate
    candidate: Estimate
    difference: Estimate
    by_class: dict[str, dict[str, float]] = {}
    incumbent_version: int | None = None


def model_card(facts: CardFacts) -> str:
    """Return the page as Markdown."""
    manifest = facts.manifest
    parts = [
        [f"# {manifest.name}, version {manifest.version}", "", f"**{manifest.notice}.** State: {facts.state}."],
        _what(manifest),
        _data(facts),
        _figures(facts.validation),
        _gate(facts),
        _limits(facts),
        _return(manifest),
        ["## Signatures", "", *(f"- key `{each}`" for each in facts.signed_by or ("none",))],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _what(manifest: Manifest) -> list[str]:
    model = manifest.model_ref
    rows = {
        "architecture": manifest.architecture,
        "network": f"`{model.sha256}`",
        "made": f"{manifest.created_at:%F %T} UTC",
        "expires": f"{manifest.expires_at:%F}: no edge takes it after that; one that runs it goes on",
        "labels": ", ".join(manifest.labels),
        "input": f"one 256x256 grey slice, prepared by version {manifest.preprocessing_version}",
        "temperature": f"{manifest.temperature:.3f}",
        "uncertain": f"where no label has a probability of {manifest.uncertain_below:.2f}",
        "on an edge": f"at most {manifest.trial.latency_ms:g} ms a slice and {manifest.trial.memory_mb:g} MB",
        "watched": f"taken back above {manifest.probation.max_disagreement:.0%} of disagreement with its predecessor, "
        f"{manifest.probation.max_contradiction:.0%} of its findings or of one label contradicted, "
        f"{manifest.probation.max_shift:.0%} of slices moved to a label, or {manifest.probation.max_abstention:.0%} "
        "more abstentions",
    }
    sizes = [f"- `{name}`, {file.size:,} bytes, {file.chunk_count} chunks" for name, file in manifest.files.items()]
    return ["## What it is", "", "| | |", "| --- | --- |", *_rows(rows), "", *sizes]


def _data(facts: CardFacts) -> list[str]:
    lines = ["## Data", ""]
    lines += [f"- training data: `{facts.manifest.training_data_sha256 or 'not told'}`"]
    lines += [f"- split by patient: `{facts.manifest.split_sha256 or 'not told'}`"]
    if facts.learnt is None:
        train = facts.manifest.metrics.get("train") or {}
        told = (
            f"{train['slices']} slices of {train['patients']} patients" if {"slices", "patients"} <= set(train) else ""
        )
        sources = ", ".join(map(str, train.get("sources", ())))
        return [*lines, *([f"- learnt from {told} ({sources})"] if told else []), "- released by hand: no request"]
    learnt = facts.learnt
    doubt = "" if learnt.complete else " (the data set is gone: these were labelled by then, held-back patients too)"
    return [
        *lines,
        f"- data set of the request: `{learnt.dataset_sha256}`",
        f"- labelled slices to learn from: {learnt.slices} of {learnt.patients} patients, on top of version "
        f"{facts.base_version} and the trainer's own base data{doubt}",
        f"- by label: {_counted(learnt.by_label)}",
        f"- by source: {_counted(learnt.by_source)}",
        f"- looked at because of: {_counted(learnt.by_disagreement)}",
        f"- asked for because: {facts.asked_because}",
    ]


def _figures(found: Evaluation | None) -> list[str]:
    lines = ["## Figures on patients that it did not learn from", ""]
    if found is None:
        return [*lines, "None were told."]
    lines += [
        f"{found.n_slices} slices of {found.n_patients} patients; 95 % intervals over patients "
        f"({found.resamples} resamples).",
        "",
        f"Balanced accuracy **{found.balanced_accuracy}**, log loss {found.log_loss:.3f}, expected calibration error "
        f"{found.calibration_error:.3f}.",
        "",
        "| class | slices | patients | sensitivity | specificity |",
        "| --- | --- | --- | --- | --- |",
    ]
    for label, each in found.by_class.items():
        figures = f"{each.sensitivity or 'not known'} | {each.specificity or 'not known'}"
        lines.append(f"| {label} | {each.n_slices} | {each.n_patients} | {figures} |")
    lines += ["", "| source | slices | patients | balanced accuracy |", "| --- | --- | --- | --- |"]
    for source, of_source in found.by_source.items():
        lines.append(
            f"| {_plain(source)} | {of_source.n_slices} | {of_source.n_patients} | {of_source.balanced_accuracy} |"
        )
    return lines


def _gate(facts: CardFacts) -> list[str]:
    lines = ["## Gate", "", f"Let through: {_plain(facts.let_through)}."]
    judged = _judged(facts.gate)
    if judged is None:
        return [*lines, "", "It was not compared with its predecessor on held-back patients."]
    against = f"version {judged.incumbent_version}" if judged.incumbent_version else "its predecessor"
    lines += [
        "",
        f"Against {against}, on {judged.n_slices} slices of {judged.n_patients} patients whom no training sees:",
        "",
        "| | balanced accuracy |",
        "| --- | --- |",
        f"| predecessor | {judged.incumbent} |",
        f"| this | {judged.candidate} |",
        f"| difference, paired | {judged.difference} |",
    ]
    if judged.by_class:
        lines += ["", "| class, one against the rest | predecessor | this |", "| --- | --- | --- |"]
    for label, each in judged.by_class.items():
        lines.append(f"| {label} | {each.get('incumbent', 0):.3f} | {each.get('candidate', 0):.3f} |")
    return lines


def _limits(facts: CardFacts) -> list[str]:
    return ["## Limits", "", *(f"- {each}" for each in _named_limits(facts))]


def _named_limits(facts: CardFacts) -> Iterator[str]:
    yield "Research use only: it must not take part in any diagnosis."
    yield "Three labels alone: anything else in a slice is called one of them, or uncertain."
    yield "Class and source are confounded in what it learnt from: read the figures by source."
    found = facts.validation
    if found is None:
        yield "Its worth on unseen patients was not told."
        return
    if found.n_patients < SMALL:
        yield f"Judged on {found.n_patients} patients: the intervals are wide, and say little."
    weak = [str(source) for source, each in found.by_source.items() if each.n_patients < SMALL]
    if weak:
        yield f"Fewer than {SMALL} patients to judge on from: {_plain(', '.join(weak))}."
    if len(found.by_source) < 2:
        yield "Judged on one source: nothing is known of others."


def _return(manifest: Manifest) -> list[str]:
    return [
        "## How to take it back",
        "",
        "Edges take it back by themselves where it leaves the bounds above. To take it back everywhere:",
        "",
        f"    sliceloop withdraw {manifest.version} --why REASON",
        "",
        f"To stop its rollout where it is: `sliceloop pause {manifest.version}`.",
    ]


def _judged(gate: Mapping[str, Any]) -> _Judged | None:
    try:
        return _Judged.model_validate(gate)
    except ValidationError:
        return None


def _rows(rows: Mapping[str, str]) -> list[str]:
    return [f"| {name} | {_plain(value)} |" for name, value in rows.items()]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_plain(name)} {count}" for name, count in sorted(counts.items())) or "none"


def _plain(text: str) -> str:
    """Keep what somebody else wrote from being more than text in a table."""
    return " ".join(text.replace("|", "/").replace("<", "(").replace(">", ")").split())
