"""torchvision's networks without their classifiers, cut by `IntermediateLayerGetter`.

All of them are a chain of parts. The strides and channels are those that a pass of an empty image
shows.

Shapes: B images, (H, W) px, D channels of a map.
"""

from collections import OrderedDict
from functools import cache, partial

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.misc import Conv2dNormActivation

from rfla.models.backbones.body import Body, last_of_each_stride
from rfla.models.backbones.pretrained import Pixels, Pretrained, imagenet_state

PROBE = 64  # px, side of the empty image
CHANNELS_LAST = "swin"  # whose maps are (B, H, W, D)


def torchvision_body(name: str) -> Body:
    """Build a network of torchvision with random weights."""
    maps = _maps(name)
    return Body(
        net=IntermediateLayerGetter(_chain(name), {part: part for part in maps}),
        ends=list(maps),
        channels=[channels for channels, _ in maps.values()],
        strides=[stride for _, stride in maps.values()],
        pretrained=partial(_pretrained, name),
        channels_last=name.startswith(CHANNELS_LAST),
    )


def _chain(name: str) -> nn.Sequential:
    """The parts of a network in their order, without its classifier."""
    if name.startswith("regnet"):
        # RegNet computes its widths in tensors, which have no values on the device `meta`
        with torch.device("cpu"):
            net = get_model(name, weights=None)
        net.to(torch.get_default_device())
        return nn.Sequential(OrderedDict(stem=net.stem) | dict(net.trunk_output.named_children()))
    features: nn.Sequential = get_model(name, weights=None).features
    # the last 1x1 convolution widens the map for the classifier
    return features[:-1] if isinstance(features[-1], Conv2dNormActivation) else features


@cache
def _maps(name: str) -> dict[str, tuple[int, int]]:
    """Channels and stride (px) of each map, finest first, by the name of the part that makes it."""
    parts, channels, strides = [], [], []
    with torch.device("meta"), torch.no_grad():
        features = torch.empty(1, 3, PROBE, PROBE)
        for part, module in _chain(name).eval().named_children():
            features = module(features)
            parts.append(part)
            is_last = name.startswith(CHANNELS_LAST)
            channels.append(features.shape[-1 if is_last else 1])
            strides.append(PROBE // features.shape[2])
    return {
        parts[index]: (channels[index], strides[index])
        for index in last_of_each_stride(name, strides)
    }


def _pretrained(name: str) -> Pretrained:
    weights = get_model_weights(name).DEFAULT
    state = imagenet_state(weights)
    if state is None:
        return None
    return state, Pixels([255 * value for value in weights.transforms().std])
