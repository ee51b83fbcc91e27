"""What the heads of point detectors share: two towers and the convolutions that predict."""

from torch import nn

from rfla.models.blocks import bias_for_probability, init_normal, tower
from rfla.names import Norm


class PointTowers(nn.Module):
    """A tower and a convolution for the classes, another for the box, with or without centerness.

    Args:
        in_channels: channels of the pyramid.
        num_classes: without background.
        width: channels of the towers.
        depth: convolutions of each tower.
        norm: `none` or `gn`.
        start_probability: of every class at every point, before training.
        centerness: whether to predict it.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int,
        depth: int,
        norm: Norm,
        start_probability: float,
        centerness: bool,
    ) -> None:
        super().__init__()
        self.cls_convs = tower(in_channels, width, depth, norm)
        self.reg_convs = tower(in_channels, width, depth, norm)
        seen = width if depth else in_channels
        self.conv_cls = nn.Conv2d(seen, num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(seen, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(seen, 1, 3, padding=1) if centerness else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_normal(module)
        init_normal(self.conv_cls, bias=bias_for_probability(start_probability))
