"""Recursive feature pyramid: it goes back into a further backbone, and both pyramids are fused.

Shapes: B images, L levels, D channels of a level, (H, W) of a level; Cn and Pn have stride 2**n px.
Source: Qiao et al., "DetectoRS" (arXiv 2006.02334), section 3.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.models.backbones.detectors_resnet import DetectorsResNet
from rfla.models.necks.fpn import FPN

DILATIONS = (1, 3, 6)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1606.00915).

    Three dilations and the global average, side by side.
    """

    def __init__(self, channels: int, branch_channels: int) -> None:
        """Take the channels of the input and of each of the four branches."""
        super().__init__()
        layers = []
        for dilation in DILATIONS:
            kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
            layers.append(
                nn.Conv2d(channels, branch_channels, kernel, padding=padding, dilation=dilation)
            )
        self.aspp = nn.ModuleList([*layers, nn.Conv2d(channels, branch_channels, 1)])

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, H, W) to (B, 4 * branch, H, W)."""
        *local, overall = self.aspp
        branches = [functional.relu(conv(features)) for conv in local]
        average = functional.relu(overall(functional.adaptive_avg_pool2d(features, 1)))
        return torch.cat([*branches, average.expand_as(branches[0])], dim=1)


class RFP(FPN):
    """An FPN that runs once for each backbone, the later ones fed with its own outputs.

    Args:
        in_channels: channels of C2, C3, C4, C5.
        in_strides: px between their cells.
        later_backbones: the backbones of the second and later passes; they take back ASPP's
            channels. None: an FPN.
        width: channels of every output, a multiple of 4.
        levels: number of outputs; those above C5 are made by pooling.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        later_backbones: Sequence[DetectorsResNet],
        width: int = 256,
        levels: int = 5,
    ) -> None:
        super().__init__(in_channels, in_strides, width, start_level=2, levels=levels)
        self.rfp_modules = nn.ModuleList(later_backbones)
        self.rfp_aspp = ASPP(width, width // 4)
        self.rfp_weight = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.rfp_weight.weight)
        nn.init.zeros_(cast(Tensor, self.rfp_weight.bias))
        if not later_backbones:  # of what no pass uses, several processes would await gradients
            self.rfp_aspp.requires_grad_(False)
            self.rfp_weight.requires_grad_(False)

    def recurse(self, images: Tensor, stages: list[Tensor]) -> list[Tensor]:
        """Make the pyramid.

        Args:
            images: (B, 3, H, W), seen again by every later backbone.
            stages: C2, C3, C4, C5 of the first backbone.

        Returns:
            L maps (B, D, H, W), finest first.
        """
        pyramid: list[Tensor] = self(stages)
        for backbone in self.rfp_modules:
            feedback = [self.rfp_aspp(level) for level in pyramid[1:4]]
            again = self(backbone(images, feedback))
            pyramid = [self._fuse(new, old) for new, old in zip(again, pyramid, strict=True)]
        return pyramid

    def _fuse(self, new: Tensor, old: Tensor) -> Tensor:
        """Mix two levels cell by cell, by a share that the new one decides (section 3.3)."""
        share = torch.sigmoid(self.rfp_weight(new))
        return share * new + (1 - share) * old
