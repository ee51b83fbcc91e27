"""Head of RetinaNet (arXiv 1708.02002): class scores and box offsets of each anchor of every level.

Shapes: B images, C classes, A anchors of a cell, (H, W) of a level.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from rfla.models.blocks import bias_for_probability, init_normal, tower
from rfla.models.detector import Raw
from rfla.names import Norm

START_PROBABILITY = 0.01  # of every class at every anchor, before training


class RetinaHead(nn.Module):
    """Two towers of convolutions, shared by the levels.

    Args:
        in_channels: channels of the pyramid.
        num_classes: without background.
        per_cell: anchors of a cell.
        width: channels of the towers.
        depth: convolutions of each tower.
        norm: `none` or `gn`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        per_cell: int,
        width: int = 256,
        depth: int = 4,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.cls_convs = tower(in_channels, width, depth, norm)
        self.reg_convs = tower(in_channels, width, depth, norm)
        seen = width if depth else in_channels
        self.retina_cls = nn.Conv2d(seen, per_cell * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(seen, per_cell * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_normal(module)
        init_normal(self.retina_cls, bias=bias_for_probability(START_PROBABILITY))

    def forward(self, pyramid: Sequence[Tensor]) -> Raw:
        """Pyramid to lists per level.

        `cls` (B, A * C, H, W) logits, `reg` (B, A * 4, H, W) encoded offsets from the anchors.
        """
        return {
            "cls": [self.retina_cls(self.cls_convs(level)) for level in pyramid],
            "reg": [self.retina_reg(self.reg_convs(level)) for level in pyramid],
        }
