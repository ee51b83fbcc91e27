"""The optimiser and its parameter groups."""

from typing import Literal

import torch
from torch import nn

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    net: nn.Module, lr: float, weight_decay: float, bias_lr_mult: float = 1.0, bias_decay: float = 0.0
) -> list[dict]:
    """Split the trainable parameters into weights and biases.

    The biases of norm layers count as weights, as in the authors' optimiser (mmcv's `paramwise_cfg`).

    Args:
        net: The network; parameters that do not require a gradient are left out.
        lr: Learning rate of the weights.
        weight_decay: Decay of the weights.
        bias_lr_mult: Factor on `lr` for biases.
        bias_decay: Factor on `weight_decay` for biases.
    """
    weights, biases = [], []
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            is_bias = name == "bias" and not isinstance(module, NORM_LAYERS)
            (biases if is_bias else weights).append(parameter)
    groups = [{"params": weights, "lr": lr, "weight_decay": weight_decay}]
    if biases:
        groups.append({"params": biases, "lr": lr * bias_lr_mult, "weight_decay": weight_decay * bias_decay})
    for group in groups:
        group["base_lr"] = group["lr"]
    return groups


def build_optimizer(
    name: Literal["sgd", "adamw"], groups: list[dict], lr: float, momentum: float, fused: bool
) -> torch.optim.Optimizer:
    """Return SGD with momentum, or AdamW with `momentum` as its first beta."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
