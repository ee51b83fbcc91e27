"""Exponential moving average of the weights."""

import copy
import math

import torch
from torch import nn


class EMA:
    """A copy of a network that follows it slowly.

    The average's memory grows from nothing to `decay` over about `ramp` updates, so that a short run is not held back
    by its random start.
    """

    def __init__(self, net: nn.Module, decay: float, ramp: float = 500.0):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move every floating-point tensor towards `net`'s; copy the others."""
        self.updates += 1
        weight = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        averaged, followed = [], []
        source = net.state_dict()
        for key, tensor in self.net.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(tensor)
                followed.append(source[key])
            else:
                tensor.copy_(source[key])
        torch._foreach_lerp_(averaged, followed, weight)
