"""One score for "an upright axial chest slice", given to a picture in each of its eight views."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.preprocess import INPUT_PX

READ_PX = 64
"""Enough to see lungs, heart and spine; texture must not matter."""
ROTATIONS_DEG = (0, 90, 180, 270)
VIEW_NAMES = tuple(
    f"rotated-{rotation}" + ("-mirrored" if mirrored else "")
    for mirrored in (False, True)
    for rotation in ROTATIONS_DEG
)
"""What eight of the logits stand for: the upright slice mirrored left to right or not, and then turned clockwise."""
NO_CHEST = "no-chest"
CLASS_NAMES = (*VIEW_NAMES, NO_CHEST)
WIDTHS = (12, 24, 32, 48)
_HIDDEN, _DROPOUT = 20, 0.2
_LEAST_SPREAD = 0.02
"""Of white: a picture with less contrast is not stretched further, so that noise does not become a picture."""
_AROUND_PX, _LEAST_SPREAD_AROUND = 8, 0.2
"""Of 64 pixels, and of the whole picture's spread."""
_CHANNELS = 2


class IntakeNetwork(nn.Module):
    """uint8 or float grey 0..255 [n, 1, 256, 256] in, logits [n, 9] of CLASS_NAMES out.

    All eight views go through the same layers: what is learnt of the upright slice holds for the turned one by
    construction, so that no way round is favoured. The ninth logit is 0: a picture that scores low in every view is
    no chest.
    """

    def __init__(self) -> None:
        """Make an untrained network; its weights come from torch's global random generator."""
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((_CHANNELS, *WIDTHS), WIDTHS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        side = READ_PX // 2 ** len(WIDTHS)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Dropout(_DROPOUT), nn.Linear(WIDTHS[-1] * side**2, _HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, 1)
        )

    def forward(self, slices: Tensor) -> Tensor:
        """Read prepared slices."""
        even = evened(F.avg_pool2d(slices.float() / 255, INPUT_PX // READ_PX))
        return self.logits([upright_view(even, view) for view in range(len(VIEW_NAMES))])

    def logits(self, views: Sequence[Tensor]) -> Tensor:
        """Return a logit for each of k views [n, 2, 64, 64] of n evened pictures, and that of no chest: [n, k + 1]."""
        scores = self.head(self.layers(torch.cat(list(views)))).view(len(views), -1).T
        return torch.cat([scores, torch.zeros_like(scores[:, :1])], 1)


def evened(grey: Tensor) -> Tensor:
    """Bring pictures [n, 1, 64, 64] to [n, 2, 64, 64]: of mean 0 and spread 1 as a whole, and so around each place.

    The first makes exposure and window matter less, the second veils, shading and glare.
    """
    centred = grey - grey.mean((2, 3), keepdim=True)
    whole = centred / (_spread(centred.square().mean((2, 3), keepdim=True)) + _LEAST_SPREAD)
    around = whole - _around(whole)
    return torch.cat([whole, around / (_spread(_around(around.square())) + _LEAST_SPREAD_AROUND)], 1)


def upright_view(pictures: Tensor, view: int) -> Tensor:
    """Undo the way round of VIEW_NAMES[view] on pictures [n, c, s, s]: turn back, then mirror back."""
    mirrored, quarters = divmod(view, len(ROTATIONS_DEG))
    turned = torch.rot90(pictures, quarters, (2, 3))
    return turned.flip(3) if mirrored else turned


def _around(pictures: Tensor) -> Tensor:
    """Return the smooth mean around each place."""
    coarse = F.avg_pool2d(pictures, _AROUND_PX)
    return F.interpolate(coarse, scale_factor=float(_AROUND_PX), mode="bilinear", align_corners=False)


def _spread(variance: Tensor) -> Tensor:
    return (variance + 1e-8).sqrt()
