"""A plain dense HLA to test the fast one against: whole score matrices and loops over boxes.

Scores are written out pair by pair in the order of the authors' float32 operations; nothing of
`rfla.assign` is used.
"""

import torch
from torch import Tensor

PLATEAU = 16


def terms(gt: Tensor, priors: Tensor) -> tuple[Tensor, ...]:
    """dx, dy, w1, h1, w2, h2 of boxes (G, 4) against priors (P, 4), each (G, P)."""
    gt, priors = gt[:, None], priors[None]
    centre1, centre2 = (gt[..., :2] + gt[..., 2:]) / 2, (priors[..., :2] + priors[..., 2:]) / 2
    d = centre1 - centre2
    size1, size2 = gt[..., 2:] - gt[..., :2] + 1e-6, priors[..., 2:] - priors[..., :2] + 1e-6
    shape = torch.zeros(d.shape[:2], dtype=d.dtype)
    return tuple(
        t + shape
        for t in (d[..., 0], d[..., 1], size1[..., 0], size1[..., 1], size2[..., 0], size2[..., 1])
    )


def kl(dx, dy, w1, h1, w2, h2):
    value = w2**2 / w1**2 + h2**2 / h1**2 + 4 * dx**2 / w1**2 + 4 * dy**2 / h1**2
    return (value + torch.log(w1**2 / w2**2) + torch.log(h1**2 / h2**2) - 2) / 2


def wasserstein(dx, dy, w1, h1, w2, h2):
    return (dx * dx + dy * dy + 1e-6) + ((w1 - w2) ** 2 + (h1 - h2) ** 2) / 4


def overlaps(gt: Tensor, priors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and hull sides (G, P, 2)."""
    low, high = (
        torch.max(gt[:, None, :2], priors[None, :, :2]),
        torch.min(gt[:, None, 2:], priors[None, :, 2:]),
    )
    sides = (high - low).clamp(min=0)
    area1 = (gt[:, 2] - gt[:, 0]) * (gt[:, 3] - gt[:, 1])
    area2 = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    inter = sides[..., 0] * sides[..., 1]
    union = (area1[:, None] + area2[None] - inter + 1e-6).clamp(min=1e-6)
    low, high = (
        torch.min(gt[:, None, :2], priors[None, :, :2]),
        torch.max(gt[:, None, 2:], priors[None, :, 2:]),
    )
    return inter, union, (high - low).clamp(min=0)


def giou(gt: Tensor, priors: Tensor) -> Tensor:
    inter, union, hull = overlaps(gt, priors)
    area = (hull[..., 0] * hull[..., 1]).clamp(min=1e-6)
    return inter / union - (area - union) / area


def diou(gt: Tensor, priors: Tensor) -> Tensor:
    inter, union, hull = overlaps(gt, priors)
    dx, dy = terms(gt, priors)[:2]
    return inter / union - (dx**2 + dy**2) / (hull[..., 0] ** 2 + hull[..., 1] ** 2 + 1e-6)


def gcd(dx, dy, w1, h1, w2, h2):
    x, y = dx**2 + (w1 - w2) ** 2 / 4, dy**2 + (h1 - h2) ** 2 / 4
    return torch.exp(-torch.sqrt(((x / w1**2 + x / w2**2) + (y / h1**2 + y / h2**2)) / 2))


def simd(dx, dy, w1, h1, w2, h2):
    m2, n2 = 6.13**2, 4.59**2
    location = torch.sqrt(m2 * (dx / (w1 + w2)) ** 2 + n2 * (dy / (h1 + h2)) ** 2)
    shape = torch.sqrt(m2 * ((w1 - w2) / (w1 + w2)) ** 2 + n2 * ((h1 - h2) / (h1 + h2)) ** 2)
    return torch.exp(-(location + shape))


SCORES = {
    "kld": lambda g, p: 1 / (1 + kl(*terms(g, p))),
    "exp_kld": lambda g, p: torch.exp(-kl(*terms(g, p)) / 10),
    "kld_10": lambda g, p: 1 / (10 + kl(*terms(g, p))),
    "wd": lambda g, p: 1 / (1 + wasserstein(*terms(g, p))),
    "nwd": lambda g, p: torch.exp(-torch.sqrt(wasserstein(*terms(g, p))) / 12.8),
    "dotd": lambda g, p: torch.exp(-torch.sqrt(terms(g, p)[0] ** 2 + terms(g, p)[1] ** 2) / 12.8),
    "gcd": lambda g, p: gcd(*terms(g, p)),
    "simd": lambda g, p: simd(*terms(g, p)),
    "symmetric_kld": lambda g, p: 1 / (1 + (kl(*terms(g, p)) + kl(*terms(p, g)).T) / 2),
    "iou": lambda g, p: overlaps(g, p)[0] / overlaps(g, p)[1],
    "giou": giou,
    "diou": diou,
}


def rescale(priors: Tensor, factor: float) -> Tensor:
    centre, side = (priors[:, 2:] + priors[:, :2]) / 2, priors[:, 2:] - priors[:, :2]
    return torch.cat((centre - side * factor / 2, centre + side * factor / 2), dim=1)


def positives(
    scores: Tensor, gt: Tensor, priors: Tensor, groups: Tensor, valid: Tensor, k: int
) -> list[Tensor]:
    """For each box the indices of the priors it takes."""
    taken = []
    candidates = valid.nonzero().squeeze(1)
    for row, box in zip(scores, gt, strict=True):
        if not len(candidates):
            taken.append(candidates)
            continue
        values = row[candidates]
        kth = values.topk(min(k, len(values))).values[-1]
        tied = candidates[values == kth]
        if torch.bincount(groups[tied]).max() > PLATEAU:
            better = candidates[values > kth]
            d = (box[:2] + box[2:]) / 2 - (priors[tied, :2] + priors[tied, 2:]) / 2
            order = (d[:, 0] ** 2 + d[:, 1] ** 2).sort(stable=True).indices
            taken.append(torch.cat((better, tied[order[: k - len(better)]])))
        else:
            taken.append(candidates[values >= kth])
    return taken


def assign(
    priors: Tensor,
    groups: Tensor,
    gt: Tensor,
    distance: str = "kld",
    topk=(3, 1),
    decay: float = 0.9,
    ignore_above: float | None = 0.8,
    conflict: str = "last",
    valid: Tensor | None = None,
    masked_in_first_stage: Tensor | None = None,
) -> Tensor:
    """(P,) int64: index of the box, -1 background, -2 ignored.

    `masked_in_first_stage` (P,) bool repeats what the official code does with ignore regions: those
    priors score -1 in the first stage and are free again in the second.
    """
    num_priors = len(priors)
    matched = torch.full((num_priors,), -1)
    valid = torch.ones(num_priors, dtype=torch.bool) if valid is None else valid
    if len(gt):
        area = ((gt[:, 2] - gt[:, 0]) * (gt[:, 3] - gt[:, 1])).tolist()
        order = (
            range(len(gt)) if conflict == "last" else sorted(range(len(gt)), key=lambda i: -area[i])
        )
        shrunk = rescale(priors, decay)
        first, second = SCORES[distance](gt, priors), SCORES[distance](gt, shrunk)
        if masked_in_first_stage is not None:
            first = torch.where(masked_in_first_stage, torch.tensor(-1.0), first)
        if ignore_above is not None:
            matched[second.amax(dim=0) >= ignore_above] = -2
        for scores, fields, k in ((second, shrunk, topk[1]), (first, priors, topk[0])):
            chosen = positives(scores, gt, fields, groups, valid, k)
            for box in order:
                matched[chosen[box]] = box
    matched[~valid] = -2
    return matched
