"""The effective receptive field of each output of any network: what its cells really look at.

The influence of a pixel on a cell is the squared Frobenius norm of the cell's derivative by the
pixel (D channels by 3 colours), summed over real images. One backward pass with random signs on the
channels estimates it: for signs r of mean 0, E |J' r|^2 = |J|^2 (Hutchinson). Theoretical fields
say what a cell can see; most of it has almost no influence, and what has is close to a Gaussian
(Luo et al., arXiv 1701.04128).

Shapes: (H, W) px of an image, R px of its longer side, D channels of a map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfla.fields.network import evaluation_mode, maps_in


@dataclass(frozen=True)
class Influence:
    """How much the pixels round a cell count for it.

    Attributes:
        shares: (2 R, 2 R) float64 of sum 1, or all 0 where no pixel counts. The upper left corner
            of the cell is in the middle, between pixels R - 1 and R.
        stride: Between neighbouring cells, px, of rows and of columns.
    """

    shares: Tensor
    stride: tuple[float, float]


@dataclass(frozen=True)
class MeasuredField:
    """The Gaussian that is nearest to what the cells of a map look at. Numbers are px.

    Attributes:
        sigma: Standard deviation of the influence, of rows and of columns; nan where no pixel has
            any.
        stride: Between neighbouring cells.
        offset: Centre from the upper left corner of the cell (row, column).
        error: Largest difference between the share of influence up to some row or column, and
            that of the Gaussian (Kolmogorov-Smirnov distance), 0 to 1.
    """

    sigma: tuple[float, float]
    stride: tuple[float, float]
    offset: tuple[float, float]
    error: float

    @property
    def side(self) -> float:
        """Side of the full field: 4 sigma, px.

        RFLA (section 3.1) models an effective field of side s as a Gaussian of deviation s / 2, and
        takes s as `fraction`, 0.5, of the full side. So s = 2 sigma, and 4 sigma is the full side
        of which 0.5 gives the Gaussian that was measured; it holds 95 % of the influence along
        each axis. Where rows and columns differ, it is the side of the square of the same area.
        """
        return 4 * math.sqrt(self.sigma[0] * self.sigma[1])


def measure_fields(
    network: nn.Module, images: Sequence[Tensor], seed: int = 0
) -> list[MeasuredField]:
    """Return the effective receptive field of each map that a network returns, in its order.

    Args:
        network: See `measure_influence`.
        images: See `measure_influence`.
        seed: Of the random signs.
    """
    return [fit_gaussian(found) for found in measure_influence(network, images, seed)]


def measure_influence(
    network: nn.Module, images: Sequence[Tensor], seed: int = 0
) -> list[Influence]:
    """Return what the middle cell of each map looks at, the mean over images.

    The same network, images and seed give the same result; no other random state is touched.

    Args:
        network: From images (1, C, H, W) to a map (1, D, H / stride, W / stride), or any nest of
            lists and dicts of maps. It is run in evaluation mode, which is undone.
        images: (C, H, W) each, on the device of the network, ready for it. What lies beyond their
            borders cannot be seen: they should be larger than the fields.
        seed: Of the random signs.
    """
    if not images:
        raise ValueError("no images to measure receptive fields on")
    signs = torch.Generator().manual_seed(seed)
    middle = max(max(image.shape[-2:]) for image in images)
    shares: list[Tensor] = []
    strides: list[tuple[float, float]] = []
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(network):
        for image in images:
            pixels = image[None].detach().clone().requires_grad_()
            maps = maps_in(network(pixels))
            if not shares:
                shares = [torch.zeros(2 * middle, 2 * middle, dtype=torch.float64) for _ in maps]
                strides = [
                    (image.shape[-2] / one.shape[-2], image.shape[-1] / one.shape[-1])
                    for one in maps
                ]
            for level, one in enumerate(maps):
                row, column = one.shape[-2] // 2, one.shape[-1] // 2
                sign = torch.randint(0, 2, (one.shape[1],), generator=signs) * 2.0 - 1
                cell = (one[0, :, row, column] * sign.to(one)).sum()
                slope: Tensor | None = None  # of a map that ignores the image
                if cell.requires_grad:
                    (slope,) = torch.autograd.grad(
                        cell, pixels, retain_graph=True, allow_unused=True
                    )
                if slope is None:
                    continue
                top = middle - round(row * strides[level][0])
                left = middle - round(column * strides[level][1])
                place = shares[level][top : top + slope.shape[-2], left : left + slope.shape[-1]]
                place += _shares(slope[0].double().square().sum(dim=0)).cpu()
    return [Influence(_shares(sum_), stride) for sum_, stride in zip(shares, strides, strict=True)]


def _shares(energy: Tensor) -> Tensor:
    """Scale to a sum of 1; all 0 where there is nothing, or nothing finite."""
    total = energy.sum()
    if not torch.isfinite(total) or total <= 0:
        return torch.zeros_like(energy)
    return energy / total


def fit_gaussian(found: Influence) -> MeasuredField:
    """Return the Gaussian nearest to an influence.

    Of all Gaussians the one with its mean and variance has the least KL divergence from a
    distribution, the measure by which RFLA compares fields with boxes. `Influence` is a square: a
    Gaussian slope exp(-x^2 / (2 sigma^2)) has the variance sigma^2 / 2 in its square, so sigma is
    the root of twice the variance.
    """
    middle = len(found.shares) / 2
    places = torch.arange(len(found.shares), dtype=torch.float64) + 0.5 - middle
    centres, deviations, errors = [], [], []
    for axis in (1, 0):  # rows: the sum over columns
        along = found.shares.sum(dim=axis)
        centre = float((along * places).sum())
        deviation = math.sqrt(float((along * (places - centre) ** 2).sum()))
        gaussian = torch.special.ndtr((places + 0.5 - centre) / max(deviation, 1e-9))
        centres.append(centre)
        deviations.append(deviation)
        errors.append(float((along.cumsum(dim=0) - gaussian).abs().max()))
    if not found.shares.any():
        return MeasuredField((math.nan,) * 2, found.stride, (math.nan,) * 2, math.nan)
    height, width = (math.sqrt(2) * deviation for deviation in deviations)
    return MeasuredField((height, width), found.stride, (centres[0], centres[1]), max(errors))
