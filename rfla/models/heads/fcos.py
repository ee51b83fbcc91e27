"""Head of FCOS (arXiv 1904.01355): classes, distances to the sides, centerness, at every point.

Shapes: B images, C classes, (H, W) of a level.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from rfla.models.blocks import Scale, init_normal
from rfla.models.heads.towers import PointTowers
from rfla.names import Norm


class FCOSHead(PointTowers):
    """Two towers of convolutions, shared by the levels; centerness sits on the regression tower.

    Args:
        in_channels: channels of the pyramid.
        num_classes: without background.
        strides: px of each pyramid level; each level has its own learnable factor on the distances
            too.
        width: channels of the towers.
        depth: convolutions of each tower.
        norm: `none` or `gn`.
        start_probability: of every class at every point, before training.
        start_distance: to every side, in strides, before training.
        centerness: whether to predict it.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        strides: Sequence[int],
        width: int = 256,
        depth: int = 4,
        norm: Norm = "none",
        start_probability: float = 0.01,
        start_distance: float = 0.0,
        centerness: bool = True,
    ) -> None:
        super().__init__(
            in_channels, num_classes, width, depth, norm, start_probability, centerness
        )
        self.strides = tuple(strides)
        self.scales = nn.ModuleList(Scale() for _ in strides)
        init_normal(self.conv_reg, bias=start_distance)

    def forward(self, features: list[Tensor]) -> dict[str, list[Tensor]]:
        """Pyramid to lists per level.

        Returns:
            `cls` (B, C, H, W) logits, `reg` (B, 4, H, W) left, top, right, bottom in px, never
            negative, `centerness` (B, 1, H, W) logits if it is predicted.
        """
        raw: dict[str, list[Tensor]] = {"cls": [], "reg": []}
        if self.conv_centerness is not None:
            raw["centerness"] = []
        for feature, scale, stride in zip(features, self.scales, self.strides, strict=True):
            regression = self.reg_convs(feature)
            raw["cls"].append(self.conv_cls(self.cls_convs(feature)))
            raw["reg"].append(functional.relu(scale(self.conv_reg(regression)).float()) * stride)
            if self.conv_centerness is not None:
                raw["centerness"].append(self.conv_centerness(regression))
        return raw
