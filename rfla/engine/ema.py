"""The average of a network's weights (EMA), which is validated and saved."""

import copy
import math

import torch
from torch import nn

RAMP = 500.0  # updates after which the average keeps 63 % of `decay` of itself


class EMA:
    """A copy of a network that follows it slowly; the network's tensors must stay where they are.

    The average's memory grows from nothing to `decay` over about `RAMP` updates, so that a short
    run is not held back by its random start.

    Args:
        net: The network that learns.
        decay: Share of the average that an update keeps, in the long run.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        # The tensors themselves, not copies: loading a state into either network keeps them.
        own, source = self.net.state_dict(), net.state_dict()
        floating = [key for key, tensor in own.items() if tensor.is_floating_point()]
        counters = [key for key, tensor in own.items() if not tensor.is_floating_point()]
        self.averaged = [own[key] for key in floating]
        self.followed = [source[key] for key in floating]
        self.copied = [own[key] for key in counters]
        self.copied_from = [source[key] for key in counters]

    @torch.no_grad()
    def update(self) -> None:
        """Move every floating-point tensor towards the network's; copy the others."""
        self.updates += 1
        weight = 1 - self.decay * (1 - math.exp(-self.updates / RAMP))
        torch._foreach_lerp_(self.averaged, self.followed, weight)
        if self.copied:
            torch._foreach_copy_(self.copied, self.copied_from)
