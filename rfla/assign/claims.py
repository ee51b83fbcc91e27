"""Boxes that compete for priors by score: who gets which, and who helps a box left without any.

Shapes: B images, P priors of an image, N boxes of all images, k candidates of a box. `place` is the
position of a candidate among the B P priors of all images.
"""

import torch
from torch import Tensor

from rfla.assign.regions import BACKGROUND


def claim(place: Tensor, score: Tensor, wanted: Tensor, num_places: int) -> Tensor:
    """Give each prior to the box that claims it with the highest score, of equal ones the last.

    Args:
        place: (N, k) int64.
        score: (N, k) float32, at least 0 where wanted.
        wanted: (N, k) bool: which candidates a box claims.
        num_places: B P.

    Returns:
        (B P,) int64 index of the box, -1 where none claims the prior.
    """
    box = torch.arange(len(place), device=place.device)[:, None]
    # The bits of floats that are not negative order like integers, so one scatter settles all.
    key = (score.view(torch.int32).to(torch.int64) << 32) + box
    best = torch.full((num_places,), -1, dtype=torch.int64, device=place.device)
    best.scatter_reduce_(0, place.flatten(), torch.where(wanted, key, -1).flatten(), "amax")
    return torch.where(best >= 0, best & 0xFFFFFFFF, BACKGROUND)


def rescue(owner: Tensor, place: Tensor, score: Tensor) -> Tensor:
    """Give each box without a prior its best candidate that is not another's only one.

    Boxes that want the same one settle it as in `claim`; the others stay without, as does one whose
    candidates are all the only ones of their boxes.

    Args:
        owner: (B P,) int64 index of the box, negative where none has the prior.
        place: (N, k) int64.
        score: (N, k) float32, at least 0; negative where the candidate does not exist.

    Returns:
        (B P,) int64 as `owner`.
    """
    held = torch.zeros(len(place) + 1, dtype=torch.int64, device=owner.device)
    held.scatter_add_(0, owner.clamp(min=-1) + 1, torch.ones_like(owner))
    held = held[1:]  # (N,), without those of no box
    holder = owner[place]  # (N, k)
    spare = (holder < 0) | (held[holder.clamp(min=0)] > 1)
    best, index = torch.where(spare, score, -1.0).max(dim=1, keepdim=True)  # (N, 1)
    needed = (held == 0)[:, None] & (best >= 0)
    given = claim(place.gather(1, index), best, needed, len(owner))
    return torch.where(given >= 0, given, owner)
