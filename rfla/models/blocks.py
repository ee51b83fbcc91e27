"""Small parts that the heads share."""

import math

import torch
from torch import Tensor, nn

from rfla.names import Norm
from rfla.ops.group_norm import group_norm_relu

GROUPS = 32


class ConvBlock(nn.Module):
    """3x3 convolution, group norm or none, ReLU; (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = "none") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = GroupNormReLU(out_channels) if norm == "gn" else nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the three in turn."""
        out: Tensor = self.norm(self.conv(features))
        return out


def tower(in_channels: int, width: int, depth: int, norm: Norm = "none") -> nn.Sequential:
    """`depth` blocks of `width` channels in a row; without any it passes its input on."""
    widths = [in_channels] + [width] * depth
    return nn.Sequential(*[ConvBlock(widths[i], width, norm) for i in range(depth)])


class GroupNormReLU(nn.GroupNorm):
    """Group norm of 32 groups, as in the authors' code, and ReLU.

    A narrow layer has gcd(32, channels) groups, halved where each would hold one channel.
    """

    def __init__(self, channels: int) -> None:
        groups = math.gcd(GROUPS, channels)
        super().__init__(groups // 2 if groups == channels else groups, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H, W) to the same."""
        return group_norm_relu(features, self.num_groups, self.weight, self.bias, self.eps)


class Scale(nn.Module):
    """One learnable factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Multiply."""
        return features * self.scale


def init_normal(conv: nn.Conv2d | nn.Linear, bias: float = 0.0) -> None:
    """Weights of standard deviation 0.01, a constant bias."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)


def bias_for_probability(probability: float) -> float:
    """Logit at which a sigmoid starts with this probability (arXiv 1708.02002, section 4.1)."""
    return -math.log((1 - probability) / probability)
