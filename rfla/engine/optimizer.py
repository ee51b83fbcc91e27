"""The optimiser and its parameter groups."""

from typing import Any

import torch
from torch import nn

from rfla.models.backbones.backbone import Backbone
from rfla.names import OptimizerName

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
        backbone_lr_mult: Factor on the rates of the backbone; DetectoRS has several.
        norm_decay: Factor on `weight_decay` for the weights and biases of norm layers.

    Returns:
        Groups for a torch optimiser; `base_lr` is the rate that the schedule multiplies.
    """
    backbones = [module for module in net.modules() if isinstance(module, Backbone)]
    of_backbones = {id(parameter) for part in backbones for parameter in part.parameters()}
    members: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for module in net.modules():
        in_norm = isinstance(module, NORM_LAYERS)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                kind = "norm" if in_norm else "bias" if name == "bias" else "weight"
                members.setdefault((id(parameter) in of_backbones, kind), []).append(parameter)
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
