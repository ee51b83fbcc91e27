"""The optimiser and its parameter groups."""

from typing import Any, Literal

import torch
from torch import nn

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    net: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_mult: float = 1.0,
    bias_decay: float = 0.0,
    backbone_lr_mult: float = 1.0,
) -> list[dict[str, Any]]:
    """Split the trainable parameters into weights and biases, of the backbone and of the rest.

    The biases of norm layers count as weights, as in the authors' optimiser (mmcv's `paramwise_cfg`).

    Args:
        net: The network; parameters that do not require a gradient are left out.
        lr: Learning rate of the weights.
        weight_decay: Decay of the weights.
        bias_lr_mult: Factor on `lr` for biases.
        bias_decay: Factor on `weight_decay` for biases.
        backbone_lr_mult: Factor on the rates of everything under `backbone.`.

    Returns:
        Groups for a torch optimiser; `base_lr` is the rate that the schedule multiplies.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for prefix, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                is_bias = name == "bias" and not isinstance(module, NORM_LAYERS)
                members.setdefault((prefix.startswith("backbone"), is_bias), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (in_backbone, is_bias), parameters in members.items():
        rate = lr * (bias_lr_mult if is_bias else 1.0) * (backbone_lr_mult if in_backbone else 1.0)
        decay = weight_decay * (bias_decay if is_bias else 1.0)
        groups.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups


def build_optimizer(
    name: Literal["sgd", "adamw"], groups: list[dict[str, Any]], lr: float, momentum: float, fused: bool
) -> torch.optim.Optimizer:
    """Return SGD with momentum, or AdamW with `momentum` as its first beta."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
