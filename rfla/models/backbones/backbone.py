"""What the rest of a detector asks of its backbone, and how any backbone is frozen and loaded."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from rfla.cfg.model_schema import BackboneConfig
from rfla.models.backbones.match import match
from rfla.models.backbones.pretrained import Pixels, Pretrained, fold_input_scale


class Backbone(nn.Module, ABC):
    """Pixels to feature maps of falling resolution.

    Attributes:
        name: for messages.
        channels: of each map, finest first.
        strides: px between the cells of each map, finest first; each twice the one before.
        frozen_stages: -1 nothing, 0 the stem, n the stem and the first n stages.
        norm_eval: batch norm keeps its stored statistics while training.
        norm_trainable: scale and shift of batch norm learn.
        added: name parts of tensors that pretrained weights of its kind do not have.
    """

    name: str
    channels: Sequence[int]
    strides: Sequence[int]
    frozen_stages: int = -1
    norm_eval: bool = False
    norm_trainable: bool = True
    added: Collection[str] = ()

    @classmethod
    @abstractmethod
    def from_config(cls, section: BackboneConfig) -> Self:
        """Build it with random weights."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map (B, channels, H / stride, W / stride) for each stride."""

    def imagenet_weights(self) -> Pretrained:
        """The library's own weights, from its cache or the network; here there are none."""
        return None

    def load_imagenet(self, std: Sequence[float], channels: str) -> bool:
        """Load ImageNet weights for pixels that were divided by `std` in the order of `channels`.

        Args:
            std: the network's, in the order of `channels`.
            channels: `rgb` or `bgr`.

        Returns:
            False where the weights cannot be had.
        """
        found = self.imagenet_weights()
        if found is None:
            return False
        state, trained_on = found
        self.start_from(match(self, state, self.added).fitting, trained_on, Pixels(std, channels))
        return True

    def show_stem(self) -> None:
        """Give the map of stride 2 as well, where one is kept back: a pyramid from P1 needs it."""

    def start_from(self, state: Mapping[str, Tensor], trained_on: Pixels, wanted: Pixels) -> None:
        """Load weights that were trained on other pixels than this network will see.

        Args:
            state: by the names of this module; what it lacks stays as it is.
            trained_on: what the weights saw.
            wanted: what the network sees.
        """
        self.load_state_dict(dict(state), strict=False)
        fold_input_scale(self.first_convolution(), trained_on, wanted)

    def first_convolution(self) -> nn.Conv2d:
        """The first convolution that was registered: the one that sees the pixels."""
        return next(module for module in self.modules() if isinstance(module, nn.Conv2d))

    def thaw(self) -> None:
        """Let everything learn, batch norm and its statistics included, as random weights need."""
        self.frozen_stages, self.norm_eval, self.norm_trainable = -1, False, True
        self.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for the frozen stages and, with `norm_eval`, for batch norm."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.norms():
                module.eval()
        return self

    def freeze(self) -> None:
        """Keep the parameters of the frozen stages, and of batch norm that must not learn."""
        for module in [*self.frozen_modules(), *([] if self.norm_trainable else self.norms())]:
            module.requires_grad_(False)

    def norms(self) -> list[nn.Module]:
        """Every batch norm."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def frozen_modules(self) -> list[nn.Module]:
        """The modules of the stem and of the stages that `frozen_stages` counts."""
        return []
