"""What one training varies, and what it says while it runs; without torch, so that the service stays small."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Balance = Literal["none", "class", "class-source"]
OptimizerName = Literal["adamw", "sgd"]
DeviceName = Literal["auto", "cpu", "cuda"]


def _balance(value: object) -> object:
    """Read the yes and no of earlier settings."""
    return {True: "class", False: "none"}[value] if isinstance(value, bool) else value


class TrainSettings(BaseModel):
    """What one training varies; the input side belongs to the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    epochs: int = Field(12, ge=1)
    """Passes over the training slices."""
    batch: int = Field(32, ge=2)
    """Slices a step, over all processes."""
    optimizer: OptimizerName = "adamw"
    """adamw, or sgd with Nesterov's momentum of 0.9."""
    learning_rate: float | None = Field(None, gt=0)
    """At its peak; none takes the architecture's own (0.01 with sgd), which is meant for training from scratch."""
    backbone_rate_share: float = Field(1.0, gt=0, le=1)
    """Share of the learning rate for all but the last layer; below 1 pretrained weights change less."""
    freeze_epochs: int = Field(0, ge=0)
    """So many first epochs teach the last layer alone."""
    weight_decay: float = Field(0.01, ge=0)
    """Of weights, not of biases and normalisations; decoupled with adamw."""
    warmup_share: float = Field(0.1, ge=0, le=1)
    """Share of all steps in which the learning rate climbs; after it, it falls along a cosine."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Of the moving average of the weights, which is judged and kept instead of them; 0 keeps none."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better one on validation; none goes on to the end."""
    augment: float = Field(1.0, ge=0, le=4)
    """How strongly slices are moved, scaled, tilted, brightened, blurred and made noisy; 0 leaves them as they are."""
    greys: float = Field(1.0, ge=0, le=4)
    """How many times as strongly gamma, contrast and brightness are varied: cameras change them more than scanners."""
    window: float = Field(0.0, ge=0, le=1)
    """Chance that a slice is shown in a narrower grey window, as another viewer has it."""
    exchange: float = Field(0.0, ge=0, le=1)
    """Chance that a slice of lungs only is shown inside another slice's body, so that bodies say less of the class."""
    views_share: float = Field(1.0, ge=0, le=1)
    """Share of a batch's slices that are shown a second time as a camera gives them, where captured views are given."""
    views_weight: float = Field(4.0, ge=0)
    """Of the inconsistency between the answers to a slice and to its captured view, beside their mean cross-entropy."""
    balanced: Annotated[Balance, BeforeValidator(_balance)] = "class"
    """class: as many slices of each; class-source: of these as many of each source; none: every slice once an epoch."""
    half: bool = False
    """Store the released network's weights as float16: half the file, and a change of it compresses better. Its answers
    differ from the trained network's by some 0.001 to 0.01 in logits. A retraining of such a network needs it too."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one; there, half precision is used, on the CPU never."""
    seed: int = Field(0, ge=0)
    """Of order and augmentation; a request brings its own."""
    threads: int = Field(1, ge=1)
    """The same seed gives the same bits only with the same number of threads."""


@dataclass(frozen=True)
class Step:
    """One finished step: the `step`-th of `steps` in its epoch, its mean cross-entropy, and how many slices it read."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    slices: int


class Progress(BaseModel):
    """One finished epoch and how long it took.

    Both losses are plain cross-entropy, whatever smoothing the labels were learnt with. Training's loss and accuracy
    are those of the drawn and augmented slices (and captured views) as they were learnt from, so while the weights
    still changed; validation's are of the slices as they are, by the weights that would be kept.
    """

    model_config = ConfigDict(frozen=True)
    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_balanced_accuracy: float
    learning_rate: float
    seconds: float
    captured_balanced_accuracy: float | None = None
    """Of all simulated captured views of validation's slices; None where a training has none."""
    captured_loss: float | None = None
    """Of the same."""
