"""Small parts that the heads share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.names import Norm

GROUPS = 32


class ConvBlock(nn.Module):
    """3x3 convolution, group norm or none, ReLU; (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = "none") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = GroupNorm(out_channels) if norm == "gn" else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the three in turn."""
        out: Tensor = self.relu(self.norm(self.conv(features)))
        return out


class GroupNorm(nn.GroupNorm):
    """Group norm of 32 groups, as in the authors' code.

    Fewer where a narrow layer would have groups of one channel. It computes in float32. Under
    autocast on a GPU that is torch's rule, and its output stays float32; on a CPU it is done here,
    since torch's gradient of a bfloat16 map in `channels_last` is slow (torch 2.14;
    `benchmarks/small_steps.py` compares the two).
    """

    def __init__(self, channels: int) -> None:
        groups = math.gcd(GROUPS, channels)
        super().__init__(groups // 2 if groups == channels else groups, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H, W) to the same."""
        if features.is_cuda or features.dtype not in (torch.bfloat16, torch.float16):
            return super().forward(features)
        weight, bias = self.weight.float(), self.bias.float()
        out = functional.group_norm(features.float(), self.num_groups, weight, bias, self.eps)
        return out.to(features.dtype)


class Scale(nn.Module):
    """One learnable factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Multiply."""
        return features * self.scale


def init_normal(conv: nn.Conv2d | nn.Linear, std: float = 0.01, bias: float = 0.0) -> None:
    """Weights from N(0, std), a constant bias."""
    nn.init.normal_(conv.weight, std=std)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)


def bias_for_probability(probability: float) -> float:
    """Logit at which a sigmoid starts with this probability (arXiv 1708.02002, section 4.1)."""
    return -math.log((1 - probability) / probability)
