"""Networks of torchvision and timm with three classes, under their own key names, and how each is read."""

from typing import Any

import torch
from torch import Tensor, nn

from protocol.labels import LABELS
from training import vision
from training.networks.architecture import IMAGENET_MEAN, IMAGENET_STD, Outputs, by_position
from training.networks.evened import evened

_HEAD_STD = 0.01
"""As torchvision's mobile networks begin their last layer."""
_SEED_CROP = 224 / 256
"""The paper resized to 256 and cut 224 out of the middle."""


def squeezenet(version: str) -> nn.Module:
    """Make torchvision's SqueezeNet 1_0 or 1_1."""
    net: nn.Module = getattr(vision.models(), f"squeezenet{version}")(num_classes=len(LABELS))
    return net


def squeezenet_bn(version: str) -> nn.Module:
    """Make a SqueezeNet with a batch normalisation after each convolution of the features.

    The dropout is left out too: with it, learning from scratch stays at chance for more than twice as many steps.
    """
    net: Any = _with_batch_norm(squeezenet(version))
    net.classifier[0] = nn.Identity()
    return net  # type: ignore[no-any-return]


def resnet18() -> nn.Module:
    """Make torchvision's ResNet-18."""
    net: nn.Module = vision.models().resnet18(num_classes=len(LABELS))
    return net


def timm_network(name: str) -> nn.Module:
    """Make a network of timm's, with a quiet last layer.

    timm spreads its weights by the number of classes alone (1/sqrt(3) for three), after which the first epochs undo
    logits of the size of ten.
    """
    net: Any = vision.timm().create_model(name, num_classes=len(LABELS))
    nn.init.normal_(net.classifier.weight, std=_HEAD_STD)
    nn.init.zeros_(net.classifier.bias)
    return net  # type: ignore[no-any-return]


def read_squeezenet(net: Any, x: Tensor) -> Outputs:
    """Leave torchvision's last ReLU out: behind it, a class whose map falls below zero can never learn again."""
    maps = net.features(x)
    dropout, last_convolution = net.classifier[0], net.classifier[1]
    class_maps = last_convolution(dropout(maps))
    return class_maps.mean((2, 3)), maps.mean((2, 3)), class_maps


def read_evened_squeezenet(net: Any, grey: Tensor) -> Outputs:
    """Show the slice as it is in one colour, and with its light evened out in the two others."""
    even = evened(grey)
    mean, std = (torch.tensor(each, device=grey.device).view(1, -1, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return read_squeezenet(net, (torch.cat([grey, even, even], 1) - mean) / std)


def read_seed_squeezenet(net: Any, x: Tensor) -> Outputs:
    """Read as the paper did: the middle 224 of 256 pixels, and torchvision's network with its last ReLU."""
    side = round(x.shape[-1] * _SEED_CROP)
    edge = (x.shape[-1] - side) // 2
    maps = net.features(x[:, :, edge : edge + side, edge : edge + side])
    class_maps = net.classifier[:3](maps)
    return class_maps.mean((2, 3)), maps.mean((2, 3)), class_maps


def read_resnet(net: Any, x: Tensor) -> Outputs:
    """Read by torchvision's ResNet."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    class_maps = by_position(net.fc, maps)
    return class_maps.mean((2, 3)), maps.mean((2, 3)), class_maps


def read_efficientnet(net: Any, x: Tensor) -> Outputs:
    """Read by timm's EfficientNet."""
    maps = net.forward_features(x)
    features = maps.mean((2, 3))
    return net.classifier(features), features, by_position(net.classifier, maps)


def read_mobilenet(net: Any, x: Tensor) -> Outputs:
    """Read by timm's MobileNet, which has one more layer and ReLU between the pooling and its last layer.

    That ReLU lets a feature through or not, and is linear in those that pass: so the last two layers become one
    layer a slice, and applied by position it gives a map whose mean is the logit, as in the other networks.
    """
    maps = net.forward_features(x)
    features = net.act2(net.norm_head(net.conv_head(maps.mean((2, 3), keepdim=True)))).flatten(1)
    return net.classifier(features), features, _map_through_relu(net, maps, features)


def _map_through_relu(net: Any, maps: Tensor, features: Tensor) -> Tensor:
    norm = net.norm_head
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    passing = net.classifier.weight * (features > 0).to(maps.dtype)[:, None]
    by_map = (passing * scale) @ net.conv_head.weight.flatten(1)
    constant = passing @ (norm.bias - norm.running_mean * scale) + net.classifier.bias
    class_maps: Tensor = by_map @ maps.flatten(2) + constant[:, :, None]
    return class_maps.reshape(-1, len(LABELS), *maps.shape[2:])


def _with_batch_norm(net: Any) -> nn.Module:
    """Normalise after each convolution of the features; the export folds it away, so that it costs the edge nothing."""
    for parent in list(net.features.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                child.bias = None
                setattr(parent, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))
    return net  # type: ignore[no-any-return]
