"""Any network of torchvision or timm as a backbone: its maps, and what is frozen of it.

How a network is cut into a body that gives maps is the affair of `torchvision_networks.py` and
`timm_networks.py`; ResNets have a file of their own, since the authors' variants change their
insides.

Shapes: B images, (H, W) px, D channels of a map.
"""

from typing import Self

from torch import Tensor, nn

from rfla.cfg.backbone_names import TIMM
from rfla.cfg.model_schema import BackboneConfig
from rfla.errors import ConfigError
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.body import Body
from rfla.models.backbones.pretrained import Pretrained
from rfla.models.backbones.timm_networks import timm_body
from rfla.models.backbones.torchvision_networks import torchvision_body


class NetworkBackbone(Backbone):
    """A network without its classifier, and its last map of each stride.

    Args:
        name: torchvision's, or timm's after `timm/`.
        body: the network, and where its maps come from.
        frozen_stages: see `Backbone`.
        norm_eval: see `Backbone`.
        norm_trainable: see `Backbone`.

    Raises:
        ConfigError: `frozen_stages` for a network whose stages are not known.
    """

    def __init__(
        self,
        name: str,
        body: Body,
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm_trainable: bool = True,
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body.net
        self.channels, self.strides = list(body.channels), list(body.strides)
        self.channels_last, self.ends = body.channels_last, body.ends
        self.pretrained = body.pretrained
        self.frozen_stages = frozen_stages
        self.norm_eval, self.norm_trainable = norm_eval, norm_trainable
        self.freeze()

    @classmethod
    def from_config(cls, section: BackboneConfig) -> Self:
        """Build it with random weights.

        Raises:
            ConfigError: timm has no such network or is not installed, or it gives no pyramid.
        """
        name = section.name
        body = timm_body(name) if name.startswith(TIMM) else torchvision_body(name)
        return cls(name, body, section.frozen_stages, section.norm_eval, section.norm_trainable)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map (B, D, H / stride, W / stride) for each stride."""
        maps = self.body(images)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        return [each.permute(0, 3, 1, 2) for each in maps] if self.channels_last else maps

    def imagenet_weights(self) -> Pretrained:
        """See `Backbone`: those of torchvision or timm."""
        return self.pretrained()

    def frozen_modules(self) -> list[nn.Module]:
        """The modules of the stem and of the stages that `frozen_stages` counts."""
        if self.frozen_stages < 0:
            return []
        # stage n makes the map of stride 2 ** (n + 1)
        ends = [
            end
            for end, stride in zip(self.ends, self.strides, strict=True)
            if stride <= 2 ** (self.frozen_stages + 1)
        ]
        end = ends[-1] if ends else self._stem()
        if end is None:
            raise ConfigError(
                f"backbone.frozen_stages={self.frozen_stages}: which parts of {self.name} make a "
                "stage is not known; give backbone.frozen_stages=-1"
            )
        return _until(self.body, end)

    def _stem(self) -> str:
        """The part before the stages of a network without a map of stride 2.

        timm takes a stem apart into `stem_0`, `stem_1`, ...
        """
        names = [
            name
            for name, child in self.body.named_children()
            if next(child.parameters(), None) is not None
        ]
        stem = names[0].partition("_")[0]
        return [name for name in names if name.partition("_")[0] == stem][-1]


def _until(net: nn.Module, end: str) -> list[nn.Module]:
    """The module of this name and all that are registered before it, as forward runs them."""
    found: list[nn.Module] = []
    parent = net
    for part in end.split("."):
        for name, child in parent.named_children():
            if name == part:
                break
            found.append(child)
        parent = parent.get_submodule(part)
    return [*found, parent]
