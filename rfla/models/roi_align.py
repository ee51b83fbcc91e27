"""RoIAlign over a feature pyramid: each box is pooled from the level that fits its size.

Shapes: B images, L levels, N boxes of all images, C channels, S cells on a side. Boxes are xyxy px.
Source: He et al., "Mask R-CNN" (arXiv 1703.06870) for the pooling; FPN (arXiv 1612.03144), equation
1, for the level.
"""

from collections.abc import Sequence

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor, nn

from rfla.ops.interpolate import interpolate

MAX_OUTPUTS = 2**31 - 1


class RoIAlignPyramid(nn.Module):
    """Pool boxes from the pyramid.

    torchvision's `MultiScaleRoIAlign` infers the strides from the image size and has no `aligned`
    option, which shifts the samples by half a pixel: much, for objects of a few pixels.
    """

    def __init__(self, strides: Sequence[int], size: int = 7, finest_scale: float = 56.0) -> None:
        """Take the geometry.

        Args:
            strides: px between the cells of the L finest levels.
            size: S, cells on a side.
            finest_scale: boxes with sides below twice this (px) use the finest level.
        """
        super().__init__()
        self.strides = tuple(strides)
        self.size = size
        self.finest_scale = finest_scale

    def levels(self, boxes: Tensor) -> Tensor:
        """Level (N,) of boxes (N, 4): 0 below twice `finest_scale`, one more for each doubling."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(dim=1)
        level = torch.log2(torch.sqrt(width * height) / self.finest_scale + 1e-6).floor()
        return level.clamp(min=0, max=len(self.strides) - 1).long()

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pool in float32, also under autocast.

        Args:
            features: At least L maps (B, C, H, W), finest first; further ones are not used.
            rois: (N, 5) image index, then the box.

        Returns:
            (N, C, S, S) float32, in the order of `rois`.
        """
        # The operator turns corners into whole numbers unchecked: NaN, which a network that has
        # diverged proposes, would be read from anywhere in memory.
        rois = torch.nan_to_num(rois)
        levels = self.levels(rois[:, 1:])
        order = levels.argsort(stable=True)
        counts = (
            (levels[:, None] == torch.arange(len(self.strides), device=levels.device))
            .sum(dim=0)
            .tolist()
        )
        # one call counts its outputs in 32 bits: more RoIs than this would come back as zeros
        at_a_time = MAX_OUTPUTS // (features[0].shape[1] * self.size**2)
        pooled = []
        with torch.autocast(rois.device.type, enabled=False):
            for level, part in enumerate(torch.split(rois[order], counts)):
                # A level without boxes still takes part, so that its gradient is zero and not
                # missing.
                pooled += [
                    pool_boxes(features[level].float(), few, self.strides[level], self.size)
                    for few in torch.split(part, at_a_time)
                ]
        return torch.cat(pooled)[order.argsort()]


def pool_boxes(features: Tensor, rois: Tensor, stride: int, size: int, samples: int = -1) -> Tensor:
    """RoIAlign of one map: the operator itself.

    Its gradient on a GPU adds the cells of overlapping boxes in an order that changes from run to
    run; with `deterministic=true` it is computed on the CPU. Torchvision's own function would
    choose a version in Python then, which holds all samples of all boxes at once: a terabyte for
    512 boxes of P2. On a CPU the operator's gradient is slow: one sample a cell is read by
    `interpolate` there.

    Args:
        features: (B, C, H, W) float32.
        rois: (N, 5) image index, then the box. The operator turns corners into whole numbers
            unchecked: NaN would be read from anywhere in memory.
        stride: px between the cells of the map.
        size: S, cells on a side.
        samples: on a side of each cell; -1 takes one for each cell of the map that it covers.

    Returns:
        (N, C, S, S) float32.
    """
    device = features.device
    if samples == 1 and device.type == "cpu" and not torch.onnx.is_in_onnx_export():
        points = _middles(rois[:, 1:], size) / stride - 0.5
        read = interpolate(features, rois[:, 0].long(), points)  # (N, S * S, C)
        return read.transpose(1, 2).reshape(-1, features.shape[1], size, size)
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        features, rois = features.cpu(), rois.cpu()
    pooled: Tensor = torch.ops.torchvision.roi_align(
        features, rois, 1 / stride, size, size, samples, True
    )
    return pooled.to(device)


def _middles(boxes: Tensor, size: int) -> Tensor:
    """Return the middles of the cells of boxes (N, 4), (N, S * S, 2), row by row."""
    cells = torch.arange(size, dtype=torch.float32, device=boxes.device)
    shares = (cells + 0.5) / size
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    x, y = (low + (high - low) * shares).unbind(dim=1)  # (N, S)
    grid = x[:, None].expand(-1, size, -1), y[..., None].expand(-1, -1, size)
    return torch.stack(grid, dim=-1).flatten(1, 2)
