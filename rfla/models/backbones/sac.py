"""Switchable atrous convolution with weight standardisation, the convolution of DetectoRS.

Shapes: B images, C input and O output channels, (H, W) of a map.
Source: Qiao et al., "DetectoRS" (arXiv 2006.02334), section 4.
"""

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

WINDOW = 5  # the switch and the offsets look at averages over 5 x 5 cells
DILATION = 3  # the second branch sees three times as far
FARTHEST = 1e6  # cells of an offset: it points outside any map, and still fits an int32


class StandardizedConv2d(nn.Conv2d):
    """Convolution whose filters are brought to a stored mean and deviation before use.

    Buffers `weight_gamma` and `weight_beta` (O, 1, 1, 1) are that deviation and mean. A state dict
    of a plain convolution (ImageNet weights) has none: they are then taken from its filters, so
    that the layer computes the same.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take the place of `conv`: its geometry and its weights."""
        stride, padding = _pair(conv.stride), _pair(cast(tuple[int, ...], conv.padding))
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            stride,
            padding,
            bias=False,
        )
        self.weight = conv.weight
        self.weight_gamma: Tensor
        self.weight_beta: Tensor
        self.register_buffer("weight_gamma", torch.ones(conv.out_channels, 1, 1, 1))
        self.register_buffer("weight_beta", torch.zeros(conv.out_channels, 1, 1, 1))

    def standardized(self) -> Tensor:
        """Return the filters (O, C, k, k) that the convolution uses."""
        mean, deviation = _filter_statistics(self.weight)
        return self.weight_gamma * ((self.weight - mean) / deviation) + self.weight_beta

    def keep_weight(self) -> None:
        """Take deviation and mean from the weight as it is now: standardising changes nothing."""
        with torch.no_grad():
            mean, deviation = _filter_statistics(self.weight)
            self.weight_gamma.copy_(deviation)
            self.weight_beta.copy_(mean)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / stride, W / stride)."""
        return functional.conv2d(features, self.standardized(), None, self.stride, self.padding)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and prefix + "weight_gamma" not in state_dict:
            mean, deviation = _filter_statistics(weight)
            state_dict = {
                **state_dict,
                prefix + "weight_gamma": deviation,
                prefix + "weight_beta": mean,
            }
        super()._load_from_state_dict(state_dict, prefix, *args)


class SwitchableConv2d(StandardizedConv2d):
    """Two deformable 3x3 convolutions, one dilated, mixed cell by cell by a learned switch.

    Both share the standardised filters; the dilated one adds `weight_diff`. Before and after, the
    global average of the map is added through a 1x1 convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take the place of `conv`, a 3x3 convolution."""
        super().__init__(conv)
        inputs, outputs, stride = conv.in_channels, conv.out_channels, _pair(conv.stride)
        cells = 2 * self.kernel_size[0] * self.kernel_size[1]  # an x and a y offset for each tap
        self.switch = nn.Conv2d(inputs, 1, 1, stride=stride)
        self.weight_diff = nn.Parameter(torch.zeros_like(self.weight))
        self.pre_context = nn.Conv2d(inputs, inputs, 1)
        self.post_context = nn.Conv2d(outputs, outputs, 1)
        self.offset_s = nn.Conv2d(inputs, cells, 3, stride=stride, padding=1)
        self.offset_l = nn.Conv2d(inputs, cells, 3, stride=stride, padding=1)
        for layer in self.added_layers():
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))

    def added_layers(self) -> list[nn.Conv2d]:
        """Return the layers that a plain convolution does not have."""
        return [self.switch, self.pre_context, self.post_context, self.offset_s, self.offset_l]

    def start_plain(self) -> Self:
        """Make the layer compute what its filters alone would, as it starts on ImageNet weights."""
        for layer in self.added_layers():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))
        nn.init.ones_(cast(Tensor, self.switch.bias))
        nn.init.zeros_(self.weight_diff)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / stride, W / stride); the deformable branches in float32."""
        features = features + self.pre_context(functional.adaptive_avg_pool2d(features, 1))
        pad = WINDOW // 2
        # maps of 1 or 2 cells cannot be reflected
        mode = "reflect" if min(features.shape[-2:]) > pad else "replicate"
        padded = functional.pad(features, (pad, pad, pad, pad), mode=mode)
        average = functional.avg_pool2d(padded, WINDOW, stride=1)
        switch = self.switch(average)
        weight = self.standardized()
        near = self._deform(features, self.offset_s(average), weight, 1)
        far = self._deform(features, self.offset_l(average), weight + self.weight_diff, DILATION)
        mixed = switch * near + (1 - switch) * far
        context: Tensor = self.post_context(functional.adaptive_avg_pool2d(mixed, 1))
        result: Tensor = mixed + context
        return result

    def _deform(self, features: Tensor, offset: Tensor, weight: Tensor, dilation: int) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            # The operator turns places into whole numbers unchecked: NaN, or an offset of a network
            # that has diverged, would be read from anywhere in memory.
            near = torch.nan_to_num(offset.float(), nan=FARTHEST).clamp(-FARTHEST, FARTHEST)
            moved: Tensor = deform_conv2d(
                features.float(),
                near,
                weight.float(),
                stride=_pair(self.stride),
                padding=dilation,
                dilation=dilation,
            )
        return moved


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


def _filter_statistics(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each filter, both (O, 1, 1, 1)."""
    flat = weight.flatten(1)
    mean, deviation = flat.mean(dim=1), (flat.var(dim=1) + 1e-5).sqrt()
    return mean.view(-1, 1, 1, 1), deviation.view(-1, 1, 1, 1)
