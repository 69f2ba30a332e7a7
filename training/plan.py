"""What one training varies, and what it says after each epoch; without torch, so that the service stays small."""

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """What one training varies; the input side belongs to the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    epochs: int = Field(12, ge=1)
    """Passes over the training slices."""
    batch: int = Field(32, ge=2)
    """Slices a step."""
    learning_rate: float | None = Field(None, gt=0)
    """At its peak; None takes the architecture's own, which is meant for training from scratch."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    warmup_share: float = Field(0.1, ge=0, le=1)
    """Share of all steps in which the learning rate climbs; after it, it falls along a cosine."""
    augment: bool = True
    """Flip, shift, scale, intensity, blur and noise."""
    balanced: bool = True
    """Draw as many slices of each class; off, every slice once an epoch."""
    seed: int = Field(0, ge=0)
    """Of order and augmentation; a request brings its own."""
    threads: int = Field(1, ge=1)
    """The same seed gives the same bits only with the same number of threads."""


class Progress(BaseModel):
    """One finished epoch and how long it took."""

    model_config = ConfigDict(frozen=True)
    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    validation_balanced_accuracy: float
    learning_rate: float
    seconds: float
