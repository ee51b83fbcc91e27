"""How near a box is to a prior: the receptive field distance of RFLA and alternatives.

Shapes: G boxes of one image, P priors. Boxes are xyxy in px. Each box and each prior is a Gaussian
N(centre, diag(w^2/4, h^2/4)) (RFLA, section 3.1).

Larger is nearer throughout. Every score is made of a few terms that depend on one axis alone. The
windowed path computes them once for each row and once for each column of a window, and only
combines them for every cell. The float32 order of operations is that of the authors' code, so a
score is the same to the bit in a full (G, P) matrix and in a small window of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from rfla.assign.arguments import checked_rows
from rfla.assign.intervals import EPS, Axis, Intervals
from rfla.errors import ConfigError, did_you_mean

Terms = tuple[Tensor, ...]


@dataclass(frozen=True)
class Distance:
    """One way to score boxes against priors.

    Attributes:
        terms: What one axis contributes to the score.
        combine: (terms of x, terms of y, memory for the result or None) -> score. The result may
            be written into the memory or be a new tensor.
        formula: For people; w1, h1 are the sides of the box, w2, h2 those of the prior.
        reference: Where it comes from.
        value_range: Smallest and largest score.
        reach: `reach(score, side)` is the largest offset in px between the centres, along an axis
            on which the prior has this side, at which a box of any size can still have this score.
            None where scores do not fall with the offset, so that no window is exact.
        made_by: A function and the arguments with which it makes this distance again.
    """

    # A representation names the formula, and not the addresses of functions.
    terms: Callable[[Axis], Terms] = field(repr=False)
    combine: Callable[[Terms, Terms, Tensor | None], Tensor] = field(repr=False)
    formula: str
    reference: str
    value_range: tuple[float, float] = (0.0, 1.0)
    reach: Callable[[float, float], float] | None = field(default=None, repr=False)
    made_by: tuple[Callable[..., "Distance"], tuple[float, ...]] | None = field(
        default=None, repr=False
    )

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle by name, or by its function and arguments: it holds functions without a name."""
        for name, known in DISTANCES.items():
            if known is self:
                return get_distance, (name,)
        if self.made_by is not None:
            function, numbers = self.made_by
            if function(*numbers).formula == self.formula:  # it may have been replaced in part
                return self.made_by
        return super().__reduce_ex__(protocol)


# Kullback-Leibler divergence of the prior's Gaussian from the box's (RFLA, section 3.2)


def _kl_terms(axis: Axis) -> Terms:
    gt = axis.gt.side**2
    prior = axis.prior.side**2
    return prior / gt, 4 * axis.offset**2 / gt, torch.log(gt / prior)


def _kl(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    """KL divergence, with the additions in the authors' order."""
    kl = torch.add(x[0], y[0], out=out)
    kl += x[1]
    kl += y[1]
    kl += x[2]
    kl += y[2]
    kl -= 2
    return kl.div_(2)


def _kld(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    return _kl(x, y, out).add_(1).reciprocal_()


def _kld_10(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    return _kl(x, y, out).add_(10).reciprocal_()


def _exp_kld(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    return _kl(x, y, out).neg_().div_(10).exp_()


def _kl_reach(kl: float, side: float) -> float:
    """Offset at which the KL divergence is at least `kl`, whatever the size of the box.

    The box that tolerates most has w1^2 = w2^2 + 4 dx^2, and its divergence on that axis is
    ln(1 + 4 dx^2 / w2^2) / 2.
    """
    if kl < 0:
        return 0.0
    # exp(600) is near the largest float64
    return side / 2 * math.sqrt(math.expm1(2 * kl)) if kl < 300 else math.inf


def _symmetric_kl_terms(axis: Axis) -> Terms:
    """The terms of both directions, three each."""
    return _kl_terms(axis) + _kl_terms(Axis(axis.prior, axis.gt))


def _symmetric_kld(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    there = _kl(x, y, out)
    back = _kl(x[3:], y[3:], None)
    return there.add_(back).div_(2).add_(1).reciprocal_()


# Wasserstein distance between the Gaussians, and distances built like it


def _wasserstein_terms(axis: Axis) -> Terms:
    return axis.offset**2, (axis.gt.side - axis.prior.side) ** 2


def _wasserstein(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    """Squared 2-Wasserstein distance, px^2, plus 1e-6."""
    squared = torch.add(x[0], y[0], out=out)
    squared += EPS
    return squared.add_((x[1] + y[1]).div_(4))


def _wd(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    return _wasserstein(x, y, out).add_(1).reciprocal_()


def _gcd_terms(axis: Axis) -> Terms:
    spread = axis.offset**2 + (axis.gt.side - axis.prior.side) ** 2 / 4
    return (spread / axis.gt.side**2 + spread / axis.prior.side**2,)


def _gcd(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    return torch.add(x[0], y[0], out=out).div_(2).sqrt_().neg_().exp_()


def nwd(constant: float = 12.8) -> Distance:
    """Normalised Wasserstein distance; `constant` is the mean object size of the data in px.

    12.8 is that of AI-TOD.
    """

    def combine(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
        return _wasserstein(x, y, out).sqrt_().div_(constant).neg_().exp_()

    return Distance(
        terms=_wasserstein_terms,
        combine=combine,
        formula=f"exp(-sqrt(dx^2 + dy^2 + ((w1-w2)^2 + (h1-h2)^2)/4) / {constant:g})",
        reference="Wang et al., arXiv 2110.13389; Xu et al., ISPRS 2022",
        reach=lambda score, side: -math.log(score) * constant,
        made_by=(nwd, (constant,)),
    )


def dotd(constant: float = 12.8) -> Distance:
    """Dot distance, between centres alone; `constant` is the mean object size of the data in px.

    12.8 is that of AI-TOD.
    """

    def combine(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
        return torch.add(x[0], y[0], out=out).sqrt_().div_(constant).neg_().exp_()

    return Distance(
        terms=lambda axis: (axis.offset**2,),
        combine=combine,
        formula=f"exp(-sqrt(dx^2 + dy^2) / {constant:g})",
        reference="Xu et al., CVPR Workshops 2021",
        reach=lambda score, side: -math.log(score) * constant,
        made_by=(dotd, (constant,)),
    )


def simd(width_weight: float = 6.13, height_weight: float = 4.59) -> Distance:
    """Similarity distance; the weights are means over the data, here those of VisDrone."""

    def terms(axis: Axis) -> Terms:
        total = axis.gt.side + axis.prior.side
        return (axis.offset / total) ** 2, ((axis.gt.side - axis.prior.side) / total) ** 2

    def combine(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
        location = (width_weight**2 * x[0] + height_weight**2 * y[0]).sqrt_()
        shape = (width_weight**2 * x[1] + height_weight**2 * y[1]).sqrt_()
        return location.add_(shape).neg_().exp_()

    def reach(score: float, side: float) -> float:
        # A box of unlimited width scores exp(-weight) at any offset: below that there is no bound.
        ratio = -math.log(score) / min(width_weight, height_weight)
        return math.inf if ratio >= 1 else ratio * 2 * side / (1 - ratio)

    location = "hypot(m dx/(w1+w2), n dy/(h1+h2))"
    shape = "hypot(m (w1-w2)/(w1+w2), n (h1-h2)/(h1+h2))"
    return Distance(
        terms=terms,
        combine=combine,
        formula=f"exp(-({location} + {shape})), m = {width_weight:g}, n = {height_weight:g}",
        reference="Shi et al., IROS 2024",
        reach=reach,
        made_by=(simd, (width_weight, height_weight)),
    )


# Overlap: no window is exact for these, since all boxes apart from each other score the same


def _overlap_terms(axis: Axis) -> Terms:
    """Length in common, of the box, of the prior, and of the hull that covers both."""
    gt, prior = axis.gt, axis.prior
    common = torch.minimum(gt.high, prior.high) - torch.maximum(gt.low, prior.low)
    hull = torch.maximum(gt.high, prior.high) - torch.minimum(gt.low, prior.low)
    return common.clamp_(min=0), gt.high - gt.low, prior.high - prior.low, hull.clamp_(min=0)


def _diou_terms(axis: Axis) -> Terms:
    return *_overlap_terms(axis), axis.offset**2


def _intersection_and_union(x: Terms, y: Terms) -> tuple[Tensor, Tensor]:
    """Areas in px^2; the union is at least 1e-6."""
    intersection = x[0] * y[0]
    union = x[1] * y[1] + x[2] * y[2]
    return intersection, union.sub_(intersection).add_(EPS).clamp_(min=EPS)


def _iou(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    intersection, union = _intersection_and_union(x, y)
    return intersection.div_(union)


def _giou(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    intersection, union = _intersection_and_union(x, y)
    hull = (x[3] * y[3]).clamp_(min=EPS)
    return intersection / union - (hull - union) / hull


def _diou(x: Terms, y: Terms, out: Tensor | None) -> Tensor:
    diagonal = (x[3] ** 2 + y[3] ** 2).add_(EPS)
    return _iou(x, y, None).sub_((x[4] + y[4]).div_(diagonal))


RFLA = "Xu et al., RFLA, ECCV 2022"
KL = "(w2^2/w1^2 + h2^2/h1^2 + 4 dx^2/w1^2 + 4 dy^2/h1^2 + ln(w1^2/w2^2) + ln(h1^2/h2^2) - 2) / 2"

DISTANCES: dict[str, Distance] = {
    "kld": Distance(
        terms=_kl_terms,
        combine=_kld,
        formula=f"1 / (1 + KL), KL = {KL}",
        reference=RFLA,
        reach=lambda score, side: _kl_reach(1 / score - 1, side),
    ),
    "exp_kld": Distance(
        terms=_kl_terms,
        combine=_exp_kld,
        formula=f"exp(-KL / 10), KL = {KL}",
        reference=RFLA,
        reach=lambda score, side: _kl_reach(-10 * math.log(score), side),
    ),
    "kld_10": Distance(
        terms=_kl_terms,
        combine=_kld_10,
        formula=f"1 / (10 + KL), KL = {KL}",
        reference=RFLA,
        value_range=(0.0, 0.1),
        reach=lambda score, side: _kl_reach(1 / score - 10, side),
    ),
    "wd": Distance(
        terms=_wasserstein_terms,
        combine=_wd,
        formula="1 / (1 + dx^2 + dy^2 + ((w1-w2)^2 + (h1-h2)^2)/4)",
        reference=RFLA,
        reach=lambda score, side: math.sqrt(max(1 / score - 1, 0.0)),
    ),
    "nwd": nwd(),
    "dotd": dotd(),
    "gcd": Distance(
        terms=_gcd_terms,
        combine=_gcd,
        formula="exp(-sqrt(D)), D = ((dx^2 + (w1-w2)^2/4) (1/w1^2 + 1/w2^2) "
        "+ (dy^2 + (h1-h2)^2/4) (1/h1^2 + 1/h2^2)) / 2",
        reference="Guan et al., arXiv 2510.27649",
        reach=lambda score, side: -math.log(score) * math.sqrt(2) * side,
    ),
    "simd": simd(),
    "symmetric_kld": Distance(
        terms=_symmetric_kl_terms,
        combine=_symmetric_kld,
        formula="1 / (1 + (KL(prior, box) + KL(box, prior)) / 2)",
        reference="closed form for diagonal Gaussians",
        reach=lambda score, side: math.sqrt(max(1 / score - 1, 0.0)) * side,
    ),
    "iou": Distance(
        terms=_overlap_terms,
        combine=_iou,
        formula="intersection / union",
        reference="Everingham et al., IJCV 2010",
    ),
    "giou": Distance(
        terms=_overlap_terms,
        combine=_giou,
        formula="IoU - (hull - union) / hull",
        reference="Rezatofighi et al., CVPR 2019",
        value_range=(-1.0, 1.0),
    ),
    "diou": Distance(
        terms=_diou_terms,
        combine=_diou,
        formula="IoU - (dx^2 + dy^2) / diagonal^2 of the hull",
        reference="Zheng et al., AAAI 2020",
        value_range=(-1.0, 1.0),
    ),
}
"""Every distance by the name that `assigner.distance` knows it by."""


def get_distance(distance: str | Distance) -> Distance:
    """Return the distance of this name, or the distance itself.

    Raises:
        ConfigError: No distance has this name.
    """
    if isinstance(distance, Distance):
        return distance
    if not isinstance(distance, str) or distance not in DISTANCES:
        hint = did_you_mean(distance, DISTANCES)
        raise ConfigError(
            f"assigner.distance: no distance '{distance}'; one of {', '.join(DISTANCES)}{hint}"
        )
    return DISTANCES[distance]


def pairwise(distance: Distance, gt_boxes: Tensor, prior_boxes: Tensor) -> Tensor:
    """Score (G, 4) boxes against (P, 4) priors of the same float type: (G, P)."""
    gt = gt_boxes[:, None]  # (G, 1, 4)
    prior = prior_boxes[None]  # (1, P, 4)
    terms = []
    for low, high in ((0, 2), (1, 3)):  # x, then y
        axis = Axis(
            gt=Intervals(gt[..., low], gt[..., high]),
            prior=Intervals(prior[..., low], prior[..., high]),
        )
        terms.append(distance.terms(axis))
    return distance.combine(terms[0], terms[1], None)


@torch.no_grad()
def receptive_field_distance(
    gt_boxes: Tensor, prior_boxes: Tensor, distance: str | Distance = "kld"
) -> Tensor:
    """Score every box against every prior; larger is nearer (RFLA, section 3.2).

    Args:
        gt_boxes: (G, 4) xyxy px; a fifth column, a score, is passed over. Half precision is
            computed in float32, float64 in float64.
        prior_boxes: (P, 4) xyxy px, effective receptive fields or any other boxes, as `gt_boxes`.
        distance: A name of `DISTANCES` or a `Distance`.

    Returns:
        (G, P) scores in float32, or in float64 where an input has it.

    Raises:
        ConfigError: No distance has this name.
        ValueError: Rows that are no boxes.
    """
    boxes = checked_rows(gt_boxes, "gt_boxes", with_scores=True)
    priors = checked_rows(prior_boxes, "prior_boxes", with_scores=True)
    dtype = torch.promote_types(boxes.dtype, priors.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return pairwise(get_distance(distance), boxes.to(dtype), priors.to(dtype))
