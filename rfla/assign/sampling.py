"""Which of the assigned priors a loss sees: all of them, or a random share as in Faster R-CNN.

Shapes: P priors of one image. The draw is made on the CPU from an explicit seed, so it is the same
on every device. How many priors are drawn follows from their values, for which a host waits on a
GPU: callers bring the assignments of all images to the host at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND


@dataclass(frozen=True)
class SampledPriors:
    """Indices of priors of one image, ascending: `positive` (N,) and `negative` (M,) int64."""

    positive: Tensor
    negative: Tensor


class PseudoSampler:
    """Take every positive and every background prior."""

    def __call__(self, matched: Tensor) -> SampledPriors:
        """Sample the (P,) assignments."""
        positive = (matched >= 0).nonzero().squeeze(1)
        negative = (matched == BACKGROUND).nonzero().squeeze(1)
        return SampledPriors(positive, negative)


@dataclass(eq=False)
class RandomSampler:
    """Take `num` priors at random, at most a share `pos_fraction` of them positive.

    Background fills the rest.

    Attributes:
        num: Priors of one image.
        pos_fraction: Largest share of positives.
    """

    num: int
    pos_fraction: float = 0.5

    def __call__(
        self, matched: Tensor, generator: torch.Generator | int | None = None
    ) -> SampledPriors:
        """Sample the (P,) assignments of one image.

        Args:
            matched: (P,) int64 as an assigner returns it.
            generator: A CPU generator, or a seed for a new one; None draws from torch's global
                generator.
        """
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        every = PseudoSampler()(matched)
        positive = _draw(every.positive, int(self.num * self.pos_fraction), generator)
        room = self.num - len(positive)
        return SampledPriors(positive, _draw(every.negative, room, generator))


def _draw(candidates: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` of the candidates without replacement, in ascending order."""
    if len(candidates) <= count:
        return candidates
    order = torch.randperm(len(candidates), generator=generator)[:count].sort().values
    return candidates[order.to(candidates.device)]
