"""How the figures of `curve`, `sources` and `tune` came about: weights, data, settings, code and machine, in each."""

from collections.abc import Mapping

import torch
from pydantic import BaseModel, JsonValue, TypeAdapter

from sliceloop.pooled import Begin, Request
from training.data.slices import SliceSet
from training.device import pick_device
from training.head import used_settings
from training.judging.unseen import LeakMark
from training.plan import TrainSettings
from training.provenance import code_commit, hardware, versions

_VERSIONS_OF = ("sliceloop", "numpy", "scikit-learn", "torch", "torchvision")
_SHOWN_DIGITS = 12


class Part(BaseModel):
    """The slices of one split."""

    n_slices: int
    n_patients: int
    sources: tuple[str, ...]
    sha256: str


class Story(BaseModel):
    """What all three say of themselves; `settings` are those that were used."""

    architecture: str
    input_px: int
    mode: str
    start_weights: str
    split: str
    seed: int
    excluded_sources: tuple[str, ...]
    settings: dict[str, JsonValue]
    data: dict[str, Part]
    leak: LeakMark
    versions: dict[str, str]
    hardware: dict[str, JsonValue]
    commit: str | None


def tell_story(request: Request, settings: TrainSettings, parts: Mapping[str, SliceSet], start: Begin) -> Story:
    """Return what all three say of themselves; `settings` are those that the networks learnt by."""
    head = request.mode == "head"
    device = torch.device("cpu") if head else pick_device(settings.device)
    return Story(
        architecture=request.architecture,
        input_px=request.input_px,
        mode=request.mode,
        start_weights=start.weights.name,
        split=request.split,
        seed=settings.seed,
        excluded_sources=request.exclude_sources,
        settings=used_settings(settings) if head else settings.model_dump(mode="json"),
        data={split: _part(slices) for split, slices in parts.items()},
        leak=start.leak,
        versions=versions(*_VERSIONS_OF),
        hardware=hardware(device, settings.threads, 1),
        commit=code_commit(),
    )


def as_json(story: Story, **results: object) -> str:
    """Return story and results as one JSON text."""
    return TypeAdapter(dict[str, object]).dump_json(dict(story) | results, indent=1).decode()


def in_words(request: Request, parts: Mapping[str, SliceSet], start: Begin) -> str:
    """Return the part of the story that a page says before its figures."""
    who = "; ".join(
        f"{split} {len(part)} slices of {len(set(part.patients))} patients" for split, part in parts.items()
    )
    left_out = ", ".join(request.exclude_sources) or "none"
    return f"Data: {who}. Sources left out: {left_out}. {start.note}"


def footer(story: Story) -> str:
    """Return the part of the story that a page says last."""
    machine = story.hardware
    hashes = ", ".join(f"{split} {part.sha256[:_SHOWN_DIGITS]}" for split, part in story.data.items())
    return (
        f"Seed {story.seed}; {', '.join(f'{name} {number}' for name, number in story.versions.items())}; "
        f"commit {story.commit or 'not known'}; on {machine['cpu']}, {machine['device']}, "
        f"{machine['threads']} thread(s); slices sha256: {hashes}."
    )


def _part(slices: SliceSet) -> Part:
    return Part(
        n_slices=len(slices),
        n_patients=len(set(slices.patients)),
        sources=tuple(sorted(set(slices.sources))),
        sha256=slices.sha256(),
    )
