"""Feature pyramid network (arXiv 1612.03144) with the extra levels of FCOS, RetinaNet and Faster R-CNN.

torchvision's FeaturePyramidNetwork cannot start at C3 with five outputs in the three ways that the
authors' detectors need (pooling; strided convolutions on C5; on the last output, with or without
ReLU between), so this one is our own.
Shapes: B images, (H, W) of a level; Cn and Pn have stride 2**n px.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

FIRST_STAGE = 2  # the backbone's first output is C2
Extra = Literal["pool", "on_input", "on_output"]


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum, 3x3 output convolutions, extra coarse levels.

    Args:
        in_channels: channels of C2, C3, C4, C5.
        width: channels of every output.
        start_level: finest output, 2 for P2.
        levels: number of outputs.
        extra: how levels above C5 are made: `pool` the last output with stride 2; a strided
            convolution on C5 (`on_input`) or on the last output (`on_output`), and the next ones on
            the one before.
        relu_before_extra: ReLU before the second and later extra convolution.
        gain_by_input: initial weights by fan-in alone (Caffe's way) and not by fan-in and fan-out.
    """

    def __init__(
        self,
        in_channels: list[int],
        width: int = 256,
        start_level: int = 2,
        levels: int = 5,
        extra: Extra = "pool",
        relu_before_extra: bool = False,
        gain_by_input: bool = False,
    ) -> None:
        super().__init__()
        self.start = start_level - FIRST_STAGE
        used = in_channels[self.start :]
        self.levels, self.extra, self.relu_before_extra = levels, extra, relu_before_extra
        self.strides = [2 ** (start_level + level) for level in range(levels)]
        self.width = width
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in used)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in used[:levels])
        for index in range(levels - len(used) if extra != "pool" else 0):
            source = in_channels[-1] if index == 0 and extra == "on_input" else width
            self.fpn_convs.append(nn.Conv2d(source, width, 3, stride=2, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init(module, gain_by_input)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """C2..C5 to `levels` maps (B, width, H, W), finest first."""
        stages = stages[self.start :]
        merged = [conv(stage) for conv, stage in zip(self.lateral_convs, stages, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            fine = merged[level - 1]
            merged[level - 1] = fine + functional.interpolate(
                merged[level], size=fine.shape[-2:], mode="nearest"
            )
        outputs = [conv(level) for conv, level in zip(self.fpn_convs, merged, strict=False)]
        while len(outputs) < self.levels:
            outputs.append(self._next(outputs, stages[-1], len(merged)))
        return outputs[: self.levels]

    def _next(self, outputs: list[Tensor], last_stage: Tensor, regular: int) -> Tensor:
        if self.extra == "pool":
            return functional.max_pool2d(outputs[-1], 1, stride=2)
        first = len(outputs) == regular
        source = last_stage if first and self.extra == "on_input" else outputs[-1]
        if self.relu_before_extra and not first:
            source = functional.relu(source)
        level: Tensor = self.fpn_convs[len(outputs)](source)
        return level


def _init(conv: nn.Conv2d, gain_by_input: bool) -> None:
    if gain_by_input:
        nn.init.kaiming_uniform_(conv.weight, a=1)
    else:
        nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
