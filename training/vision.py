"""The one door to torchvision and timm: lets them import on a torch that torchvision's operators do not fit."""

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_definitions: list[torch.library.Library] = []
"""torch forgets a schema when its Library is collected, so it is kept here."""


def models() -> ModuleType:
    """Return `torchvision.models`; it takes about a second, so only who builds such a network pays for it."""
    _let_torchvision_import()
    return importlib.import_module("torchvision.models")


def timm() -> ModuleType:
    """Return `timm`, which imports torchvision; it takes seconds."""
    _let_torchvision_import()
    return importlib.import_module("timm")


def _let_torchvision_import() -> None:
    if not _definitions and not _operators_load():
        _define_operators()


def _operators_load() -> bool:
    """Tell whether torchvision's operators fit this torch (PyPI's wheel is built for CUDA and fails on CPU torch)."""
    spec = importlib.util.find_spec("torchvision")
    folders = (spec.submodule_search_locations or []) if spec else []
    for library in (path for folder in folders for path in Path(folder).glob("_C.*")):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            return False
    return bool(folders)


def _define_operators() -> None:
    """Define what torchvision 0.28 annotates while it is imported; nothing of ours ever calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _MISSING_SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _definitions.append(library)
