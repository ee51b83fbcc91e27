"""Head of RFD: class scores and a signed box code at every point of all levels.

FCOS takes it too, with `loss.coding=field`.

Shapes: B images, C classes, (H, W) of a level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rfla.models.heads.second_look import SecondLook
from rfla.models.heads.towers import PointTowers
from rfla.names import Norm

START_CODE = (0.0, 0.0, -0.7, -0.7)
"""Code before training: a box on its point, half as wide as the field. Tiny boxes are smaller than
the field that finds them: on nuclei of 4 to 16 px the mean log side settled from -0.45 to -1."""


class FieldHead(PointTowers):
    """Two towers of convolutions, shared by the levels; each level scales and shifts its code.

    Args:
        in_channels: channels of the pyramid.
        num_classes: without background.
        levels: number of pyramid levels.
        width: channels of the towers.
        depth: convolutions of each tower.
        norm: `none` or `gn`.
        start_probability: of every class at every point, before training.
        centerness: whether to predict it too, as FCOS does.
        second_look: moves the boxes that were found once more; None leaves them.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        levels: int,
        width: int = 256,
        depth: int = 4,
        norm: Norm = "none",
        start_probability: float = 0.01,
        centerness: bool = False,
        second_look: SecondLook | None = None,
    ) -> None:
        super().__init__(
            in_channels, num_classes, width, depth, norm, start_probability, centerness
        )
        self.scales = nn.ParameterList(torch.ones(4, 1, 1) for _ in range(levels))
        start = torch.tensor(START_CODE).view(4, 1, 1)
        self.shifts = nn.ParameterList(start.clone() for _ in range(levels))
        self.second_look = second_look

    def forward(self, features: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Pyramid to lists per level.

        Returns:
            `cls` (B, C, H, W) logits, `reg` (B, 4, H, W) the code (dx, dy, ln w, ln h) that
            `FieldCoder` decodes, float32; `centerness` (B, 1, H, W) logits if it is predicted.
            With a second look also `finest`: what it looks at, (B, 64, H, W) of the finest
            level alone.
        """
        raw: dict[str, list[Tensor]] = {"cls": [], "reg": []}
        if self.conv_centerness is not None:
            raw["centerness"] = []
        for feature, scale, shift in zip(features, self.scales, self.shifts, strict=True):
            regression = self.reg_convs(feature)
            code = self.conv_reg(regression)
            classes = self.cls_convs(feature)
            if self.second_look is not None and "finest" not in raw:
                raw["finest"] = [self.second_look.features(regression, classes)]
            raw["cls"].append(self.conv_cls(classes))
            # in float32: a logarithm of a side has no room for the rounding of bfloat16
            raw["reg"].append(code.float() * scale + shift)
            if self.conv_centerness is not None:
                raw["centerness"].append(self.conv_centerness(regression))
        return raw
