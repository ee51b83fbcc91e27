"""A detector of 40,000 weights: FCOS with a backbone of five small convolutions, so that a step takes milliseconds.

`install()` puts it in the place of the zoo's FCOS; run as a script, this file is `python -m rfla`
with it installed.
"""

import sys

import torch
from torch import Tensor, nn

from rfla.cfg.model_schema import ModelConfig
from rfla.models import zoo
from rfla.models.build_dense import build_fcos


class MicroBackbone(nn.Module):
    """Pixels to four stages of 64 to 512 channels at strides 4 to 32, with batch norm that learns unless frozen."""

    name = "micro"

    def __init__(self, learns: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 4, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layers = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, 2, 1, groups=c) for c in (64, 128, 256))
        self.learns = learns

    def train(self, mode: bool = True) -> "MicroBackbone":
        super().train(mode)
        if not self.learns:
            self.bn1.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = [self.bn1(self.conv1(images)).relu()]
        if (
            self.training and self.learns
        ):  # as the samples of a two-stage detector: the global generator matters
            stages[0] = stages[0] * (1 + 0.1 * torch.rand(()))
        for layer in self.layers:
            stages.append(layer(stages[-1]).relu())
        return stages


def build_micro(config: ModelConfig, num_classes: int) -> nn.Module:
    net = build_fcos(config, num_classes)
    net.backbone = MicroBackbone(
        learns=config.assigner.decay != 0.95
    )  # a test freezes the norm by this number
    return net


def install() -> None:
    zoo.DETECTORS["fcos"] = build_micro  # type: ignore[assignment]


if __name__ == "__main__":
    from rfla.cli import main

    torch.set_num_threads(1)
    install()
    sys.exit(main())
