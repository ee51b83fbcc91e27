"""Second look of RFD: refine each detected box from features sampled on it.

The head predicts a box from the cell of its point, and many of RFLA's points lie beside the tiny
object that they stand for. What the finest map shows on the box itself, at its sides and corners,
says better where these are.

Shapes: B images, (H, W) of the finest level, K boxes of each image, D channels of a tower, S places
on a side of a box. Boxes are xyxy px of the network input.
Source of the idea: VarifocalNet (arXiv 2008.13367, section 3.3), which samples nine places on each
box and moves it by them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.models.roi_align import pool_boxes
from rfla.ops.coding import DeltaCoder

CONTEXT = 1.5
"""Side of the region that is looked at, in sides of the box: its edges lie inside."""
SHIFT = 0.25
"""Unit of the offsets, in sides of the box: about the error of a first box."""
CHANNELS, WIDTH = 64, 128
"""Of what is looked at, and of the layer that looks: 0.6 % of the operations of a detector of usual
size at 800 px, though 9,000 boxes are looked at."""


class SecondLook(nn.Module):
    """Pool each box from the finest map, and move it by what two linear layers make of that.

    Before training no box is moved.

    Args:
        channels: D.
        stride: px between the cells of the finest level.
        places: S; with 3 they are the middle of the box, of its sides, and its corners.
    """

    def __init__(self, channels: int, stride: int, places: int = 3) -> None:
        super().__init__()
        self.stride, self.places = stride, places
        self.coder = DeltaCoder([SHIFT] * 4)
        self.conv_reg = nn.Conv2d(channels, CHANNELS, 1)
        self.conv_cls = nn.Conv2d(channels, CHANNELS, 1, bias=False)
        self.shared_fc = nn.Linear(CHANNELS * places**2, WIDTH)
        self.fc_reg = nn.Linear(WIDTH, 4)
        nn.init.zeros_(self.fc_reg.weight)
        nn.init.zeros_(self.fc_reg.bias)

    def features(self, regression: Tensor, classification: Tensor) -> Tensor:
        """(B, D, H, W) of both towers at the finest level to what is looked at, (B, 64, H, W)."""
        seen: Tensor = self.conv_reg(regression) + self.conv_cls(classification)
        return seen

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Move boxes.

        Args:
            features: (B, 64, H, W).
            boxes: (B, K, 4); they get no gradient.

        Returns:
            (B, K, 4) float32.
        """
        flat = boxes.detach().float().flatten(0, 1)
        batch, count = boxes.shape[:2]
        images = torch.arange(batch, dtype=flat.dtype, device=flat.device)
        images = images[:, None].expand(batch, count).reshape(-1, 1)
        center, half = (flat[:, :2] + flat[:, 2:]) / 2, (flat[:, 2:] - flat[:, :2]) / 2
        reach = half * CONTEXT
        rois = torch.nan_to_num(torch.cat([images, center - reach, center + reach], dim=1))
        pooled = pool_boxes(features.float(), rois, self.stride, self.places, samples=1)
        hidden = functional.relu(self.shared_fc(pooled.flatten(1).to(self.shared_fc.weight.dtype)))
        return self.coder.decode(flat, self.fc_reg(hidden).float()).view_as(boxes)
