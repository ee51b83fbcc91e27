"""RoIAlign over a feature pyramid: each box is pooled from the level that fits its size.

Shapes: B images, L levels, N boxes of all images, C channels, S cells on a side. Boxes are xyxy px.
Source: He et al., "Mask R-CNN" (arXiv 1703.06870) for the pooling; FPN (arXiv 1612.03144), equation
1, for the level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align


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
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
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
        levels = self.levels(rois[:, 1:])
        order = levels.argsort(stable=True)
        counts = (
            (levels[:, None] == torch.arange(len(self.strides), device=levels.device))
            .sum(dim=0)
            .tolist()
        )
        pooled = []
        with torch.autocast(rois.device.type, enabled=False):
            for level, (stride, part) in enumerate(
                zip(self.strides, torch.split(rois[order], counts), strict=True)
            ):
                # A level without boxes still takes part, so that its gradient is zero and not
                # missing.
                pooled.append(
                    roi_align(features[level].float(), part, self.size, 1 / stride, aligned=True)
                )
        return torch.cat(pooled)[order.argsort()]
