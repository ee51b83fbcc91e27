"""What the rest of a detector asks of its backbone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from rfla.cfg.model_schema import BackboneConfig


class Backbone(nn.Module, ABC):
    """Pixels to feature maps of falling resolution.

    Attributes:
        name: for messages.
        channels: of each map, finest first.
        strides: px between the cells of each map, finest first; each twice the one before.
    """

    name: str
    channels: Sequence[int]
    strides: Sequence[int]

    @classmethod
    @abstractmethod
    def from_config(cls, section: BackboneConfig) -> Self:
        """Build it with random weights."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map (B, channels, H / stride, W / stride) for each stride."""

    @abstractmethod
    def thaw(self) -> None:
        """Let everything learn, batch norm and its statistics included."""

    @abstractmethod
    def load_imagenet(self, std: Sequence[float], channels: str) -> bool:
        """Load ImageNet weights for pixels that were divided by `std` in the order of `channels`.

        Args:
            std: the network's, in the order of `channels`.
            channels: `rgb` or `bgr`.

        Returns:
            False where the weights cannot be had.
        """
