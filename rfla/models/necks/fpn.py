"""Feature pyramid network (arXiv 1612.03144), its extra levels as FCOS, RetinaNet or Faster R-CNN.

torchvision's FeaturePyramidNetwork cannot start at C3 with five outputs in the three ways that the
authors' detectors need (pooling; strided convolutions on C5; on the last output, with or without
ReLU between), so this one is our own.
Shapes: B images, (H, W) of a level; Cn and Pn have stride 2**n px.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.cfg.model_schema import NeckConfig
from rfla.errors import ConfigError
from rfla.models.backbones.backbone import Backbone
from rfla.names import Extra


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum, 3x3 output convolutions, extra coarse levels.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        in_strides: px between their cells.
        width: channels of every output.
        start_level: finest output, 2 for P2, 1 for P1 on the stem's map.
        levels: number of outputs.
        extra: how levels above the backbone's last map are made: `pool` the last output with stride
            2; a strided convolution on the last map (`on_input`) or on the last output
            (`on_output`), and the next ones on the one before.
        relu_before_extra: ReLU before the second and later extra convolution.
        gain_by_input: initial weights by fan-in alone (Caffe's way) and not by fan-in and fan-out.
        bottom_up: go up again from the finest level, as PANet does (arXiv 1803.01534, section 3.1),
            before the extra levels: each map adds the finer one by a convolution of stride 2.

    Attributes:
        strides: px between the cells of each output, finest first.

    Raises:
        ConfigError: the backbone has no map of the stride of `start_level`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        width: int = 256,
        start_level: int = 2,
        levels: int = 5,
        extra: Extra = "pool",
        relu_before_extra: bool = False,
        gain_by_input: bool = False,
        bottom_up: bool = False,
    ) -> None:
        super().__init__()
        finest = 2**start_level
        if finest not in in_strides:
            raise ConfigError(
                f"neck.start_level={start_level}: the backbone has no map of stride {finest}; "
                f"its strides are {', '.join(map(str, in_strides))}: from "
                f"neck.start_level={in_strides[0].bit_length() - 1} on"
            )
        self.start = list(in_strides).index(finest)
        used = in_channels[self.start :]
        self.levels, self.extra, self.relu_before_extra = levels, extra, relu_before_extra
        self.strides = [finest * 2**level for level in range(levels)]
        self.width = width
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in used)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in used[:levels])
        for index in range(levels - len(used) if extra != "pool" else 0):
            source = in_channels[-1] if index == 0 and extra == "on_input" else width
            self.fpn_convs.append(nn.Conv2d(source, width, 3, stride=2, padding=1))
        steps = min(levels, len(used)) - 1 if bottom_up else 0
        self.downsample_convs = nn.ModuleList(_conv(width, stride=2) for _ in range(steps))
        self.pafpn_convs = nn.ModuleList(_conv(width) for _ in range(steps))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init(module, gain_by_input)

    @classmethod
    def from_config(
        cls, section: NeckConfig, backbone: Backbone, gain_by_input: bool = False
    ) -> Self:
        """Build the pyramid that stands on this backbone, with random weights.

        Raises:
            ConfigError: the backbone has no map to start at.
        """
        if 2**section.start_level < backbone.strides[0]:
            backbone.show_stem()
        return cls(
            backbone.channels,
            backbone.strides,
            section.width,
            section.start_level,
            section.levels,
            section.extra,
            section.relu_before_extra,
            gain_by_input,
            section.bottom_up,
        )

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """The backbone's maps to `levels` maps (B, width, H, W), finest first."""
        stages = stages[self.start :]
        merged = [conv(stage) for conv, stage in zip(self.lateral_convs, stages, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            fine, coarse = merged[level - 1], merged[level]
            # autocast would turn the maps to float32, where copying cells needs no precision
            with torch.autocast(fine.device.type, enabled=False):
                merged[level - 1] = fine + functional.interpolate(
                    coarse, size=fine.shape[-2:], mode="nearest"
                )
        outputs = [conv(level) for conv, level in zip(self.fpn_convs, merged, strict=False)]
        if len(self.downsample_convs):
            outputs = self._up_again(outputs)
        while len(outputs) < self.levels:
            outputs.append(self._next(outputs, stages[-1], len(merged)))
        return outputs

    def _up_again(self, levels: list[Tensor]) -> list[Tensor]:
        """Add each level to the next coarser one, and smooth all but the finest."""
        for index, conv in enumerate(self.downsample_convs):
            levels[index + 1] = levels[index + 1] + _strided(conv, levels[index])
        coarser = zip(self.pafpn_convs, levels[1:], strict=True)
        return [levels[0], *(conv(level) for conv, level in coarser)]

    def _next(self, outputs: list[Tensor], last_stage: Tensor, regular: int) -> Tensor:
        """One more level above the `outputs`, of which the first `regular` have a lateral input."""
        if self.extra == "pool":
            return functional.max_pool2d(outputs[-1], 1, stride=2)
        first = len(outputs) == regular
        source = last_stage if first and self.extra == "on_input" else outputs[-1]
        if self.relu_before_extra and not first:
            source = functional.relu(source)
        return _strided(self.fpn_convs[len(outputs)], source)


def _strided(conv: nn.Module, level: Tensor) -> Tensor:
    """Apply a stride-2 convolution; in float32 to a map one cell wide, under autocast on a CPU.

    The bfloat16 gradient of its weights would hold whatever was in memory before (oneDNN of torch
    2.14).
    """
    in_float32 = torch.is_autocast_enabled("cpu") and not level.is_cuda and level.shape[-1] == 1
    with torch.autocast("cpu", enabled=False) if in_float32 else nullcontext():
        coarser: Tensor = conv(level.float() if in_float32 else level)
    return coarser


def _conv(width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, stride=stride, padding=1)


def _init(conv: nn.Conv2d, gain_by_input: bool) -> None:
    if gain_by_input:
        nn.init.kaiming_uniform_(conv.weight, a=1)
    else:
        nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
