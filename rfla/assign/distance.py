"""How near a box is to a prior: the Receptive Field Distance (RFD) of RFLA and its drop-in rivals.

Shapes: G boxes of one image, P priors. Boxes are xyxy in px; each is a Gaussian N(centre,
diag(w^2/4, h^2/4)).

"Larger is nearer" throughout. Every score is a few terms of each axis alone, combined: the terms
are computed once for a row and once for a column, only the combination for every pair. The float32
order of operations is that of the authors' code, so a full (G, P) matrix and a small window of it
come out bit for bit the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rfla.errors import ConfigError, did_you_mean

EPS = 1e-6


class Intervals:
    """Boxes or priors along one axis, px."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self._low, self._high = low, high

    @property
    def low(self) -> Tensor:
        """Where they begin."""
        return self._low

    @property
    def high(self) -> Tensor:
        """Where they end."""
        return self._high

    @cached_property
    def center(self) -> Tensor:
        """Their middle."""
        return (self.low + self.high) / 2

    @cached_property
    def side(self) -> Tensor:
        """Their length plus 1e-6 px, so that one of zero has a finite score."""
        return self.high - self.low + EPS


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis (x or y) of boxes against priors, which broadcast against each other."""

    gt: Intervals
    prior: Intervals

    @cached_property
    def offset(self) -> Tensor:
        """Box centre minus prior centre, px."""
        return self.gt.center - self.prior.center


Terms = tuple[Tensor, ...]


@dataclass(frozen=True)
class Distance:
    """One way to score boxes against priors.

    Attributes:
        name: What a configuration calls it.
        terms: What an axis contributes.
        combine: Terms of the x axis, of the y axis, memory for the result or None -> score, there
            or in a new tensor.
        formula: For people, with w1, h1 of the box and w2, h2 of the prior.
        value_range: Smallest and largest score.
        reference: Where it comes from.
        reach: `reach(score, side)`: the largest centre offset in px, along the axis on which the
            prior has this side, at which any box can still reach this score. None where scores do
            not fall with the centre offset alone.
    """

    name: str
    terms: Callable[[Axis], Terms]
    combine: Callable[[Terms, Terms, Tensor | None], Tensor]
    formula: str
    value_range: tuple[float, float]
    reference: str
    reach: Callable[[float, float], float] | None = None


def _kl_terms(axis: Axis) -> Terms:
    gt, prior = axis.gt.side**2, axis.prior.side**2
    return prior / gt, 4 * axis.offset**2 / gt, torch.log(gt / prior)


def _kl(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    """KL divergence of the prior's Gaussian from the box's, RFLA section 3.2, in the authors' order of additions."""
    kl = torch.add(x[0], y[0], out=out)
    kl += x[1]
    kl += y[1]
    kl += x[2]
    kl += y[2]
    kl -= 2
    return kl.div_(2)


def _both_kl_terms(axis: Axis) -> Terms:
    return _kl_terms(axis) + _kl_terms(Axis(axis.prior, axis.gt))


def _squares(axis: Axis) -> Terms:
    return axis.offset**2, (axis.gt.side - axis.prior.side) ** 2


def _wasserstein(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    """Squared 2-Wasserstein distance between the Gaussians, px^2, plus 1e-6."""
    squared = torch.add(x[0], y[0], out=out)
    squared += EPS
    return squared.add_((x[1] + y[1]).div_(4))


def _gcd_terms(axis: Axis) -> Terms:
    spread = axis.offset**2 + (axis.gt.side - axis.prior.side) ** 2 / 4
    return (spread / axis.gt.side**2 + spread / axis.prior.side**2,)


def nwd(constant: float = 12.8) -> Distance:
    """Normalised Wasserstein distance.

    `constant` (px) is the mean object size of the data, 12.8 for AI-TOD.
    """
    return Distance(
        "nwd",
        _squares,
        lambda x, y, out: _wasserstein(x, y, out).sqrt_().div_(constant).neg_().exp_(),
        f"exp(-sqrt(dx^2 + dy^2 + ((w1-w2)^2 + (h1-h2)^2)/4) / {constant:g})",
        (0.0, 1.0),
        "Wang et al., arXiv 2110.13389; Xu et al., ISPRS 2022",
        lambda score, side: -math.log(score) * constant,
    )


def dotd(constant: float = 12.8) -> Distance:
    """Dot distance: centres alone.

    `constant` (px) is the mean object size of the data, 12.8 for AI-TOD.
    """
    return Distance(
        "dotd",
        lambda axis: (axis.offset**2,),
        lambda x, y, out: torch.add(x[0], y[0], out=out).sqrt_().div_(constant).neg_().exp_(),
        f"exp(-sqrt(dx^2 + dy^2) / {constant:g})",
        (0.0, 1.0),
        "Xu et al., CVPR Workshops 2021",
        lambda score, side: -math.log(score) * constant,
    )


def simd(width_weight: float = 6.13, height_weight: float = 4.59) -> Distance:
    """Similarity distance; the weights are means over the data, here those published for VisDrone."""

    def terms(axis: Axis) -> Terms:
        total = axis.gt.side + axis.prior.side
        return (axis.offset / total) ** 2, ((axis.gt.side - axis.prior.side) / total) ** 2

    def combine(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
        location, shape = (
            (width_weight**2 * along_x + height_weight**2 * along_y).sqrt_()
            for along_x, along_y in zip(x, y, strict=True)
        )
        return location.add_(shape).neg_().exp_()

    def reach(score: float, side: float) -> float:
        ratio = -math.log(score) / min(width_weight, height_weight)
        return math.inf if ratio >= 1 else ratio * 2 * side / (1 - ratio)

    formula = (
        "exp(-(hypot(m dx/(w1+w2), n dy/(h1+h2)) + hypot(m (w1-w2)/(w1+w2), n (h1-h2)/(h1+h2))))"
    )
    formula += f", m = {width_weight:g}, n = {height_weight:g}"
    return Distance("simd", terms, combine, formula, (0.0, 1.0), "Shi et al., IROS 2024", reach)


def _overlap_terms(axis: Axis) -> Terms:
    """Length in common, length of the box, of the prior, and of the smallest interval that covers both."""
    gt, prior = axis.gt, axis.prior
    common = torch.minimum(gt.high, prior.high) - torch.maximum(gt.low, prior.low)
    hull = torch.maximum(gt.high, prior.high) - torch.minimum(gt.low, prior.low)
    return common.clamp_(min=0), gt.high - gt.low, prior.high - prior.low, hull.clamp_(min=0)


def _overlap(x: Terms, y: Terms) -> tuple[Tensor, Tensor]:
    """Intersection and union areas, px^2; the union is at least 1e-6."""
    overlap = x[0] * y[0]
    union = x[1] * y[1] + x[2] * y[2]
    return overlap, union.sub_(overlap).add_(EPS).clamp_(min=EPS)


def _iou(x: Terms, y: Terms, out: Tensor | None = None) -> Tensor:
    overlap, union = _overlap(x, y)
    return overlap.div_(union)


def _giou(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    overlap, union = _overlap(x, y)
    hull = (x[3] * y[3]).clamp_(min=EPS)
    return overlap / union - (hull - union) / hull


def _diou(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    diagonal = (x[3] ** 2 + y[3] ** 2).add_(EPS)
    return _iou(x, y).sub_((x[4] + y[4]).div_(diagonal))


def _kl_reach(kl: float, side: float) -> float:
    """The width that tolerates most offset is w1^2 = w2^2 + 4 dx^2.

    Its KL on that axis is ln(1 + 4 dx^2/w2^2) / 2.
    """
    if kl < 0:
        return 0.0
    return side / 2 * math.sqrt(math.expm1(2 * kl)) if kl < 300 else math.inf


_KL = "KL = (w2^2/w1^2 + h2^2/h1^2 + 4 dx^2/w1^2 + 4 dy^2/h1^2 + ln(w1^2/w2^2) + ln(h1^2/h2^2) - 2) / 2"
_RFLA = "Xu et al., RFLA, ECCV 2022"

DISTANCES: dict[str, Distance] = {
    distance.name: distance
    for distance in (
        Distance(
            "kld",
            _kl_terms,
            lambda x, y, out: _kl(x, y, out).add_(1).reciprocal_(),
            f"1 / (1 + KL), {_KL}",
            (0.0, 1.0),
            _RFLA,
            lambda score, side: _kl_reach(1 / score - 1, side),
        ),
        Distance(
            "exp_kld",
            _kl_terms,
            lambda x, y, out: _kl(x, y, out).neg_().div_(10).exp_(),
            "exp(-KL / 10)",
            (0.0, 1.0),
            _RFLA,
            lambda score, side: _kl_reach(-10 * math.log(score), side),
        ),
        Distance(
            "kld_10",
            _kl_terms,
            lambda x, y, out: _kl(x, y, out).add_(10).reciprocal_(),
            "1 / (10 + KL)",
            (0.0, 0.1),
            _RFLA,
            lambda score, side: _kl_reach(1 / score - 10, side),
        ),
        Distance(
            "wd",
            _squares,
            lambda x, y, out: _wasserstein(x, y, out).add_(1).reciprocal_(),
            "1 / (1 + dx^2 + dy^2 + ((w1-w2)^2 + (h1-h2)^2)/4)",
            (0.0, 1.0),
            _RFLA,
            lambda score, side: math.sqrt(max(1 / score - 1, 0.0)),
        ),
        nwd(),
        dotd(),
        Distance(
            "gcd",
            _gcd_terms,
            lambda x, y, out: torch.add(x[0], y[0], out=out).div_(2).sqrt_().neg_().exp_(),
            "exp(-sqrt(D)), D = ((dx^2 + (w1-w2)^2/4) (1/w1^2 + 1/w2^2) + (dy^2 + (h1-h2)^2/4) (1/h1^2 + 1/h2^2)) / 2",
            (0.0, 1.0),
            "Guan et al., arXiv 2510.27649",
            lambda score, side: -math.log(score) * math.sqrt(2) * side,
        ),
        simd(),
        Distance(
            "symmetric_kld",
            _both_kl_terms,
            lambda x, y, out: (
                _kl(x, y, out).add_(_kl(x[3:], y[3:], None)).div_(2).add_(1).reciprocal_()
            ),
            "1 / (1 + (KL(prior, box) + KL(box, prior)) / 2)",
            (0.0, 1.0),
            "closed form for diagonal Gaussians",
            lambda score, side: math.sqrt(max(1 / score - 1, 0.0)) * side,
        ),
        Distance(
            "iou",
            _overlap_terms,
            _iou,
            "intersection / union",
            (0.0, 1.0),
            "Everingham et al., IJCV 2010",
        ),
        Distance(
            "giou",
            _overlap_terms,
            _giou,
            "IoU - (hull - union) / hull",
            (-1.0, 1.0),
            "Rezatofighi et al., CVPR 2019",
        ),
        Distance(
            "diou",
            lambda axis: (*_overlap_terms(axis), axis.offset**2),
            _diou,
            "IoU - (dx^2 + dy^2) / diagonal^2 of the hull",
            (-1.0, 1.0),
            "Zheng et al., AAAI 2020",
        ),
    )
}


def get_distance(distance: str | Distance) -> Distance:
    """Look a distance up by name.

    Raises:
        ConfigError: No such name.
    """
    if isinstance(distance, Distance):
        return distance
    if distance not in DISTANCES:
        hint = did_you_mean(distance, DISTANCES)
        raise ConfigError(
            f"assigner.distance: no distance '{distance}'; one of {', '.join(DISTANCES)}{hint}"
        )
    return DISTANCES[distance]


def pairwise(distance: Distance, gt_boxes: Tensor, prior_boxes: Tensor) -> Tensor:
    """Score (G, 4) boxes against (P, 4) priors of the same float type: (G, P)."""
    gt, prior = gt_boxes[:, None], prior_boxes[None]  # (G, 1, 4), (1, P, 4)
    x, y = (
        Axis(
            Intervals(gt[..., axis], gt[..., axis + 2]),
            Intervals(prior[..., axis], prior[..., axis + 2]),
        )
        for axis in (0, 1)
    )
    return distance.combine(distance.terms(x), distance.terms(y), None)


@torch.no_grad()
def receptive_field_distance(
    gt_boxes: Tensor, prior_boxes: Tensor, distance: str | Distance = "kld"
) -> Tensor:
    """Score every box against every prior; larger is nearer.

    Args:
        gt_boxes: (G, 4) xyxy px. Half precision is computed in float32, float64 in float64.
        prior_boxes: (P, 4) xyxy px, the effective receptive fields or any boxes.
        distance: A name of `DISTANCES` or a `Distance`.

    Returns:
        (G, P) scores in float32, or in float64 where an input has it.
    """
    dtype = torch.promote_types(
        torch.promote_types(gt_boxes.dtype, prior_boxes.dtype), torch.float32
    )
    return pairwise(
        get_distance(distance),
        gt_boxes.to(dtype).reshape(-1, 4),
        prior_boxes.to(dtype).reshape(-1, 4),
    )
