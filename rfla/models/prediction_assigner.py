"""Assignment by prediction: of the priors nearest to a box, those that predict it best.

Candidates are the k nearest by receptive field distance, as in DCFL (arXiv 2304.08876); they are
ranked by class score and fit, as in TOOD (arXiv 2108.07755), and a box takes as many as its
candidates fit together, as in OTA (arXiv 2103.14259).

Shapes: B images, P points over all levels, N boxes of all images, k candidates of a box, C classes.
Boxes are xyxy in px of the network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign import BACKGROUND, DISTANCES, PriorGrid
from rfla.assign.claims import claim, rescue
from rfla.assign.images import pack
from rfla.assign.nearest import nearest_of
from rfla.models.detector import Target
from rfla.ops.quality import localization_quality


@torch.no_grad()
def assign_by_prediction(
    grid: PriorGrid,
    targets: Sequence[Target],
    logits: Tensor,
    pred_boxes: Tensor,
    matched: Tensor,
    k: int,
) -> Tensor:
    """Choose among the k nearest points of each box by what they predict.

    Args:
        grid: The points.
        targets: B truths.
        logits: (B, P, C) class scores.
        pred_boxes: (B, P, 4).
        matched: (B, P) of the assigner of the paper, which says what is ignored.
        k: Candidates of a box.

    Returns:
        (B, P) int64: index of the box, -1 background, -2 ignored.
    """
    images = pack(grid, [target["boxes"] for target in targets], None, None)
    labels = torch.cat([target["labels"] for target in targets])
    if not len(labels):
        return matched
    nearest = nearest_of(images, grid, k, DISTANCES["kld"])
    exists = nearest.prior >= 0  # (N, k)
    place = images.image[:, None] * len(grid) + nearest.prior.clamp(min=0)  # (N, k)

    score = logits.flatten(0, 1)[place, labels[:, None]].float().sigmoid()
    boxes = images.boxes[:, None].expand(-1, k, -1)
    fit = localization_quality(
        pred_boxes.flatten(0, 1)[place].flatten(0, 1), boxes.flatten(0, 1)
    ).view_as(score)
    posterior = posterior_score(score, fit)
    wanted = best_by_sum_of_fit(posterior, fit * exists) & exists

    owner = claim(place, posterior, wanted, matched.numel())
    owner = rescue(owner, place, torch.where(exists, posterior, -1.0)).view_as(matched)
    unclaimed = torch.where(matched >= 0, BACKGROUND, matched)
    return torch.where(owner >= 0, images.local[owner.clamp(min=0)], unclaimed)


def posterior_score(score: Tensor, fit: Tensor) -> Tensor:
    """Class score times the square of the fit: where a point predicts matters more than what."""
    return score * fit.square()


def best_by_sum_of_fit(posterior: Tensor, fit: Tensor) -> Tensor:
    """(N, k) bool: the best of each box, as many as the sum of all fits, rounded, and at least one.

    A box whose candidates fit well learns from many of them; one that none fits, from the best.
    """
    how_many = fit.sum(dim=1, keepdim=True).round().clamp(min=1)  # (N, 1)
    order = posterior.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)  # (N, k) place of each candidate, 0 the best
    return rank < how_many
