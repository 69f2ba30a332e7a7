"""The three classes that a slice can be read as; everywhere by name, never by index."""

from enum import StrEnum


class Label(StrEnum):
    """A diagnosis class; the paper's two edge scripts used two different index orders, so no index leaves a network."""

    NORMAL = "Normal"
    PNEUMONIA = "Pneumonia"
    COVID_19 = "COVID-19"


LABELS: tuple[Label, ...] = tuple(Label)
"""The order in which our own networks emit logits; a manifest states it too, and that one binds."""
