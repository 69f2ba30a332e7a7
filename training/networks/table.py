"""The table of architectures."""

from functools import partial

from training.networks.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture
from training.networks.baselines import PaperCnn, RepairedCnn, read_baseline
from training.networks.pretrained import (
    read_efficientnet,
    read_evened_squeezenet,
    read_mobilenet,
    read_resnet,
    read_seed_squeezenet,
    read_squeezenet,
    resnet18,
    squeezenet,
    squeezenet_bn,
    timm_network,
)

_GREY_MEAN, _GREY_STD = IMAGENET_MEAN[:1], IMAGENET_STD[:1]
_UNIT_MEAN, _UNIT_STD = (0.0,), (1.0,)
"""It evens out 0..1, and normalises what comes of it itself."""
_RAW_MEAN, _RAW_STD = (0.0,), (1 / 255,)
"""The paper's baseline was given 0..255 as they are."""
_TF_MEAN, _TF_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""MEAN_RGB and STDDEV_RGB of tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py."""

ARCHITECTURES: dict[str, Architecture] = {
    "baseline_cnn": Architecture(
        PaperCnn,
        read_baseline,
        "fc3",
        1e-3,
        1e-3,
        "the paper's baseline: sees 4x4 pixels, max pooled; 26,203 parameters, 53 million multiplications at 256 px",
        _GREY_MEAN,
        _GREY_STD,
    ),
    "repaired_cnn": Architecture(
        RepairedCnn,
        read_baseline,
        "fc",
        3e-3,
        1e-3,
        "the baseline repaired: three scales in five stages see 249 px; 219,243 parameters, 115 million at 256 px",
        _GREY_MEAN,
        _GREY_STD,
    ),
    "squeezenet1_0": Architecture(
        partial(squeezenet, "1_0"), read_squeezenet, "classifier.1", 3e-4, 3e-4, "the paper's SqueezeNet"
    ),
    "squeezenet1_1": Architecture(
        partial(squeezenet, "1_1"), read_squeezenet, "classifier.1", 3e-4, 3e-4, "2.4 times cheaper than 1.0"
    ),
    "squeezenet1_1_evened": Architecture(
        partial(squeezenet, "1_1"),
        read_evened_squeezenet,
        "classifier.1",
        3e-4,
        3e-4,
        "SqueezeNet 1.1 that also sees the slice with its light evened out: for slices from a camera",
        _UNIT_MEAN,
        _UNIT_STD,
    ),
    "squeezenet1_0_bn": Architecture(
        partial(squeezenet_bn, "1_0"),
        read_squeezenet,
        "classifier.1",
        5e-3,
        1e-3,
        "SqueezeNet 1.0 with batch normalisation",
    ),
    "squeezenet1_1_bn": Architecture(
        partial(squeezenet_bn, "1_1"),
        read_squeezenet,
        "classifier.1",
        5e-3,
        1e-3,
        "SqueezeNet 1.1 with batch normalisation",
    ),
    "resnet18": Architecture(resnet18, read_resnet, "fc", 2e-3, 3e-4, "the paper's largest; the second reader"),
    "efficientnet_lite0": Architecture(
        partial(timm_network, "tf_efficientnet_lite0"),
        read_efficientnet,
        "classifier",
        2e-3,
        5e-4,
        "made for int8 at the edge; its ImageNet weights come by pip",
        _TF_MEAN,
        _TF_STD,
    ),
    "mobilenetv4_conv_small": Architecture(
        partial(timm_network, "mobilenetv4_conv_small"),
        read_mobilenet,
        "classifier",
        2e-3,
        5e-4,
        "the current small edge network; convolutions and ReLU alone, so that int8 and TensorRT take it whole",
    ),
    "seed_squeezenet1_0": Architecture(
        partial(squeezenet, "1_0"),
        read_seed_squeezenet,
        "classifier.1",
        3e-4,
        3e-4,
        "the paper's SqueezeNet as it was read: middle 224 of 256 pixels, last ReLU",
        linear_in_features=False,
    ),
    "seed_baseline_cnn": Architecture(
        PaperCnn,
        read_baseline,
        "fc3",
        1e-3,
        1e-3,
        "the paper's baseline as it was read: grey 0..255 without normalisation",
        _RAW_MEAN,
        _RAW_STD,
    ),
}
