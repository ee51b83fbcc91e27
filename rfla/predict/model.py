"""Open the file of `model=`, weights or an exported network, for whoever runs it.

On a CPU torch runs a network in another form, which computes the same in less time: batch norm
inside the convolutions before it, and weights in the layout `channels_last`.
"""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.weights_header import is_exported
from rfla.engine.device import raw_outputs
from rfla.engine.model_source import SourceModel, load_trained
from rfla.ops.device import plain_defaults

PROBE = 64  # px: side of the noise image by which two forms of a network are compared


@plain_defaults()
def load_model(model: str, config: ModelConfig, device: torch.device) -> SourceModel:
    """Open a model that is to run.

    Args:
        model: a .safetensors file, whose network torch runs, or an .onnx file of `rfla export`,
            which onnxruntime runs.
        config: its settings with other values where a user gave them (`conf=0.3`).
        device: where it will compute.

    Raises:
        ConfigError: a zoo name or a model YAML, which has no weights, or settings that are fixed
            in an exported network.
        WeightsError: no such file, damaged, or not ours.
    """
    if is_exported(model):
        from rfla.export.session import load_exported  # here, as most runs need none of it

        return load_exported(model, config, device)
    source = load_trained(model, config)
    return replace(source, net=faster(source.net)) if device.type == "cpu" else source


def faster(net: nn.Module) -> nn.Module:
    """Return a network that computes the same, but for rounding, in less time on a CPU.

    Args:
        net: In evaluation mode; its tensors may be those of the network that is returned.
    """
    folded = deepcopy(net)
    # That two modules are neighbours does not prove that one runs on the other's output alone.
    if fold_batch_norm(folded) and _computes_the_same(folded, net):
        net = folded
    return net.to(memory_format=torch.channels_last)


def fold_batch_norm(net: nn.Module) -> int:
    """Fold each batch norm into the convolution that is registered right before it.

    Returns:
        How many were folded.
    """
    pairs = [
        (parent, conv_name, conv, norm_name, norm)
        for parent in net.modules()
        for (conv_name, conv), (norm_name, norm) in pairwise(parent.named_children())
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _fit(conv, norm)
    ]
    for parent, conv_name, conv, norm_name, norm in pairs:
        setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(parent, norm_name, nn.Identity())
    return len(pairs)


def _fit(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether one could be folded into the other: subclasses do more than their names say."""
    plain = type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d
    return plain and norm.running_mean is not None and conv.out_channels == norm.num_features


@torch.inference_mode()
def _computes_the_same(net: nn.Module, other: nn.Module) -> bool:
    """Whether the raw outputs of two networks for a noise image differ by rounding alone."""
    images = torch.randn(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    ours, theirs = raw_outputs(net, images), raw_outputs(other, images)
    return bool((ours - theirs).norm() <= 1e-4 * theirs.norm())
