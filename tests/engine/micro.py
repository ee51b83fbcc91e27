"""FCOS of 40,000 weights on a backbone of five small convolutions: a step takes milliseconds.

`install()` puts it in the place of the zoo's FCOS; run as a script, this file is `python -m rfla`
with it installed.
"""

import sys
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from rfla.cfg.model_schema import BackboneConfig, ModelConfig
from rfla.models import zoo
from rfla.models.backbones.backbone import Backbone
from rfla.models.detector import Detector
from rfla.models.fcos import FCOS
from rfla.models.rfd import RFD


class MicroBackbone(Backbone):
    """Pixels to four stages of 64 to 512 channels, with batch norm that learns unless frozen."""

    name = "micro"
    channels = (64, 128, 256, 512)
    strides = (4, 8, 16, 32)

    def __init__(self, learns: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 4, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layers = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, 2, 1, groups=c) for c in (64, 128, 256))
        self.learns = learns

    @classmethod
    def from_config(cls, section: BackboneConfig) -> Self:
        return cls(learns=section.frozen_stages < 0)

    def thaw(self) -> None:
        self.learns = True

    def load_imagenet(self, std: Sequence[float], channels: str) -> bool:
        return False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self.learns:
            self.bn1.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = [self.bn1(self.conv1(images)).relu()]
        if self.training and self.learns:
            # as the samples of a two-stage detector: the global generator matters
            stages[0] = stages[0] * (1 + 0.1 * torch.rand(()))
        for layer in self.layers:
            stages.append(layer(stages[-1]).relu())
        return stages


class OnMicro(Detector):
    """Any detector on the micro backbone, which has the channels and strides of ResNet-18."""

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        net = super().from_config(config, num_classes)
        # a test freezes the norm by this number
        net.backbone = MicroBackbone(learns=config.assigner.decay != 0.95)
        return net


class MicroFCOS(OnMicro, FCOS):
    """FCOS of 40,000 weights."""


class MicroRFD(OnMicro, RFD):
    """RFD likewise."""


def install() -> None:
    zoo.DETECTORS["fcos"] = MicroFCOS


if __name__ == "__main__":
    from rfla.cli import main

    torch.set_num_threads(1)
    install()
    sys.exit(main())
