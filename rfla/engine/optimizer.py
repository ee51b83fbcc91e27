"""The optimiser and its parameter groups, the learning rate of each step, the weights' average."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rfla.names import OptimizerName, Warmup

LONGEST_WARMUP = 0.1  # of a run
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    net: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_mult: float = 1.0,
    bias_decay: float = 0.0,
    backbone_lr_mult: float = 1.0,
    norm_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Split what learns into weights, biases and norm layers, each of the backbone and of the rest.

    The biases of norm layers count as theirs, not as biases, as in the authors' optimiser (mmcv's
    `paramwise_cfg`).

    Args:
        net: The network; parameters that do not require a gradient are left out.
        lr: Learning rate of the weights.
        weight_decay: Decay of the weights.
        bias_lr_mult: Factor on `lr` for biases.
        bias_decay: Factor on `weight_decay` for biases.
        backbone_lr_mult: Factor on the rates of everything under `backbone.`.
        norm_decay: Factor on `weight_decay` for the weights and biases of norm layers.

    Returns:
        Groups for a torch optimiser; `base_lr` is the rate that the schedule multiplies.
    """
    members: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for prefix, module in net.named_modules():
        in_norm = isinstance(module, NORM_LAYERS)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                kind = "norm" if in_norm else "bias" if name == "bias" else "weight"
                members.setdefault((prefix.split(".")[0] == "backbone", kind), []).append(parameter)
    decays = {
        "weight": weight_decay,
        "bias": weight_decay * bias_decay,
        "norm": weight_decay * norm_decay,
    }
    groups: list[dict[str, Any]] = []
    for (in_backbone, kind), parameters in members.items():
        rate = (
            lr
            * (bias_lr_mult if kind == "bias" else 1.0)
            * (backbone_lr_mult if in_backbone else 1.0)
        )
        groups.append(
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decays[kind]}
        )
    return groups


def build_optimizer(
    name: OptimizerName,
    groups: list[dict[str, Any]],
    lr: float,
    momentum: float,
    fused: bool,
) -> torch.optim.Optimizer:
    """Return SGD with momentum, or AdamW with `momentum` as its first beta."""
    if name == "sgd":
        sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
        if fused and momentum:
            # The fused step makes this memory without filling it, and where the scaler skips the
            # first step it stays so: the next one would move the weights by whatever is in it.
            for parameter in (one for group in sgd.param_groups for one in group["params"]):
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)


@dataclass(frozen=True)
class Schedule:
    """Step or cosine decay by epoch, with a warm-up by iteration.

    A run that has a time limit (`time=`) goes through it by the clock where that is ahead, so that
    it ends at the last rate too.

    Attributes:
        epochs: Length of the run.
        iterations_per_epoch: Optimiser steps in an epoch.
        steps: Epochs (counted from 0) at whose start the rate is multiplied by `gamma`.
        gamma: Factor at each step.
        cosine: Cosine from 1 to `final` in place of steps, updated every iteration.
        final: The last factor of the cosine.
        warmup_iterations: Length of the warm-up (the trainer caps it with `capped_warmup`).
        warmup_ratio: Factor at iteration 0.
        warmup: "linear" rises from `warmup_ratio` to 1; "constant" stays at `warmup_ratio` until
            the warm-up ends.
    """

    epochs: int
    iterations_per_epoch: int
    steps: Sequence[int] = (8, 11)
    gamma: float = 0.1
    cosine: bool = False
    final: float = 0.01
    warmup_iterations: int = 5000
    warmup_ratio: float = 0.001
    warmup: Warmup = "linear"

    @property
    def total_iterations(self) -> int:
        """Optimiser steps in the whole run."""
        return self.epochs * self.iterations_per_epoch

    def factor(self, iteration: int, time_share: float = 0.0) -> float:
        """Return the factor of `lr0`.

        Args:
            iteration: Counted from 0.
            time_share: Share of the time limit that has passed; 0 without one.
        """
        if self.cosine:
            progress = min(max(iteration / max(self.total_iterations, 1), time_share), 1.0)
            regular = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
        else:
            epoch = max(
                iteration // max(self.iterations_per_epoch, 1), int(time_share * self.epochs)
            )
            regular = self.gamma ** sum(epoch >= step for step in self.steps)
        # As no warm-up takes more than a tenth of the iterations, none takes more of the time.
        warm = max(iteration / max(self.warmup_iterations, 1), time_share / LONGEST_WARMUP)
        if warm >= 1 or iteration >= self.warmup_iterations:
            return regular
        if self.warmup == "constant":
            return regular * self.warmup_ratio
        return regular * (1 - (1 - warm) * (1 - self.warmup_ratio))


def capped_warmup(warmup_iterations: int, total_iterations: int) -> int:
    """Cap a warm-up at a tenth of the run: 5,000 iterations would be all that small data has."""
    return min(warmup_iterations, int(total_iterations * LONGEST_WARMUP))


def scaled_steps(steps: Sequence[int], recipe_epochs: int, epochs: int) -> tuple[int, ...]:
    """Move the steps of a recipe to another length: (8, 11) of 12 epochs is (16, 22) of 24."""
    moved = (max(1, round(step * epochs / recipe_epochs)) for step in steps)
    return tuple(sorted(set(moved)))


class EMA:
    """A copy of a network that follows it slowly; the network's tensors must stay where they are.

    The average's memory grows from nothing to `decay` over about `ramp` updates, so that a short
    run is not held back by its random start.

    Args:
        net: The network that learns.
        decay: Share of the average that an update keeps, in the long run.
        ramp: Updates after which that share has come to 63 % of `decay`.
    """

    def __init__(self, net: nn.Module, decay: float, ramp: float = 500.0):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
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
        weight = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        torch._foreach_lerp_(self.averaged, self.followed, weight)
        if self.copied:
            torch._foreach_copy_(self.copied, self.copied_from)
