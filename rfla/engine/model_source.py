"""The network of a run: where its weights come from, what of it learns, what a file says of it.

A weights file is rebuilt as it is for validation and prediction, or fitted to other classes for
training; without one a network starts from an ImageNet backbone or at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfla.cfg import Config, model_part
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.weights_header import is_exported, is_weights
from rfla.data.object_sizes import TrainedScale
from rfla.errors import ConfigError, DataError, WeightsError
from rfla.models import build_from_config, load_pretrained_backbone
from rfla.models.backbone_file import load_backbone_file
from rfla.models.weights import (
    load_model,
    load_weights,
    number_in,
    object_sizes_in,
    own_metadata,
    rebuild,
)
from rfla.models.zoo import DETECTORS
from rfla.ops.device import plain_defaults

BOXES_OF_CLASSES = "fc_reg."  # in the names of layers with a box for each class


@dataclass(frozen=True)
class SourceModel:
    """A network with what is needed to run it.

    Attributes:
        net: The network, on the CPU.
        config: The settings that rebuild it.
        names: Its classes, in the order of its outputs.
        notes: Lines for the user: what was loaded, what starts at random.
        imgsz: Long side in px that it was trained at, if known.
        scale: Sizes of the objects that it was trained on, px of its input, if known.
        at_random: Whether a training of it starts from random weights.
    """

    net: nn.Module
    config: ModelConfig
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    imgsz: int | None = None
    scale: TrainedScale | None = None
    at_random: bool = False


@plain_defaults()
def source_model(cfg: Config, names: Sequence[str]) -> SourceModel:
    """Return a network that starts from weights, a backbone of a file or ImageNet, or at random.

    That of a run that goes on is built as it began; `pretrained` is false where it was at random.
    """
    config = model_part(cfg)
    at_random = not (is_weights(cfg.model) or cfg.backbone.weights or cfg.pretrained)
    if cfg.resume:  # its state holds all weights as they are by now
        config = learn_everything(config) if at_random else config
        return SourceModel(build_from_config(config, len(names)), config, tuple(names))
    if is_weights(cfg.model):
        return fine_tune(str(cfg.model), config, names)
    if not at_random:
        net = build_from_config(config, num_classes=len(names))
        if cfg.backbone.weights is not None:
            note = load_backbone_file(net, cfg.backbone.weights)
            return SourceModel(net, config, tuple(names), (note,))
        if load_pretrained_backbone(net):
            return SourceModel(net, config, tuple(names))
    config = learn_everything(config)
    net = build_from_config(config, num_classes=len(names))
    return SourceModel(net, config, tuple(names), random_start_advice(cfg), at_random=True)


def random_start_advice(cfg: Config) -> tuple[str, ...]:
    """Return advice for random weights with the authors' SGD, chosen for an ImageNet backbone."""
    if cfg.optimizer != "sgd" or {"optimizer", "recipe"} & cfg.given:
        return ()
    return (
        "random weights: SGD as in the paper needs a long run; "
        "recipe=scratch learns far more in a short one",
    )


def learn_everything(config: ModelConfig) -> ModelConfig:
    """Return the settings with nothing frozen and batch norm learning, for a random start."""
    # Frozen random layers and statistics that never saw an image would teach nothing.
    backbone = config.backbone.model_copy(
        update={"frozen_stages": -1, "norm_eval": False, "norm_trainable": True}
    )
    return config.model_copy(update={"backbone": backbone})


def load_trained(path: str | Path, config: ModelConfig | None = None) -> SourceModel:
    """Rebuild a trained network from its weights file alone.

    Args:
        path: A .safetensors file of this package.
        config: Its settings with other values where a user gave them (`conf=0.3`); the file's own
            by default.

    Raises:
        ConfigError: A zoo name or a model YAML, which has no weights.
        WeightsError: The file is missing, damaged, not ours, or does not fit the model that it
            names.
    """
    if is_exported(str(path)):
        raise ConfigError(f"model={path}: is an exported network; give the weights it came from")
    if not is_weights(str(path)):
        raise ConfigError(
            f"model={path} is not trained yet: a .safetensors file is needed; train one first"
        )
    if config is None:
        net, metadata = load_model(path)
    else:
        state, metadata = load_weights(path)
        net = rebuild(config, len(metadata["names"]), state, str(path))
    names = tuple(metadata["names"])
    imgsz, scale = metadata.get("imgsz"), recorded_scale(metadata)
    return SourceModel(net.eval(), net.config, names, imgsz=imgsz, scale=scale)


def recorded_scale(metadata: Mapping[str, Any]) -> TrainedScale | None:
    """Return the sizes of objects that a file's metadata names; None in older files."""
    sizes = object_sizes_in(metadata)
    return None if sizes is None else TrainedScale(*sizes, gsd=number_in(metadata, "gsd"))


def fine_tune(path: str | Path, config: ModelConfig, names: Sequence[str]) -> SourceModel:
    """Start from a weights file: keep what fits, map classes by name, start the rest at random.

    Args:
        path: The weights file.
        config: Settings of the new network.
        names: Classes of the new data.
    """
    state, metadata = load_weights(Path(path))
    old_names = list(metadata["names"])
    net = build_from_config(config, num_classes=len(names))
    target = net.state_dict()
    # Which tensors hold classes, and where: those that grow with one class more, of which there may
    # be one too many for a model.
    with torch.device("meta"):
        grown = DETECTORS[config.detector].from_config(config, len(names) + 1).state_dict()
    kept, mapped, random = [], [], []
    for key, tensor in target.items():
        source = state.get(key)
        if source is None:
            random.append(key)
        elif source.shape == tensor.shape and (
            old_names == list(names) or grown[key].shape == tensor.shape
        ):
            tensor.copy_(source)
            kept.append(key)
        elif grown[key].shape != tensor.shape and _map_classes(
            key, tensor, source, grown[key], old_names, names
        ):
            mapped.append(key)
        else:
            random.append(key)
    net.load_state_dict(target)
    notes = [f"{path}: {len(kept)} of {len(target)} tensors kept"]
    if mapped:
        shared = [name for name in names if name in old_names]
        notes.append(
            f"classes mapped by name in {', '.join(mapped)}: "
            f"{', '.join(shared) or 'none in common'}"
        )
    if random:
        more = f" and {len(random) - 6} more" if len(random) > 6 else ""
        notes.append(f"started at random: {', '.join(random[:6])}{more}")
    if not kept:
        raise WeightsError(
            f"{path}: none of its weights fit model {config.detector} with {config.backbone.name}; "
            "nothing to fine-tune"
        )
    return SourceModel(net, config, tuple(names), tuple(notes))


def _map_classes(
    key: str,
    target: Tensor,
    source: Tensor,
    grown: Tensor,
    old_names: Sequence[str],
    names: Sequence[str],
) -> bool:
    """Copy the rows of classes that both have, by name, into `target`.

    Return whether it did: not where the two are laid out differently.

    Rows may come in blocks (anchors x classes, or 4 box numbers for each class), and a background
    row may end them.

    Args:
        key: Name of the tensor.
        target: Weight or bias of the new network.
        source: That of the weights file.
        grown: The new network's with one class more; its shape tells the rows of a class.
        old_names: Classes of the weights file.
        names: Classes of the new network.
    """
    # A class more makes the tensor longer by the rows that belong to one class.
    rows = grown.shape[0] - target.shape[0]  # of each class
    background = target.shape[0] - rows * len(names)
    if (
        target.shape[1:] != source.shape[1:]
        or source.shape[0] != rows * len(old_names) + background
    ):
        return False
    # Box heads hold four numbers a class; anchor heads repeat the classes for each anchor, and may
    # have four of them too, so that the shape alone does not tell.
    outer, inner = (1, rows) if BOXES_OF_CLASSES in key else (rows, 1)
    new_rows = target.view(outer, -1, inner, *target.shape[1:])
    old_rows = source.to(target.dtype).view(outer, -1, inner, *source.shape[1:])
    for i, name in enumerate(names):
        if name in old_names:
            new_rows[:, i] = old_rows[:, list(old_names).index(name)]
    if background:
        new_rows[:, -1] = old_rows[:, -1]
    return True


def freeze(net: nn.Module, prefixes: Sequence[str]) -> None:
    """Keep the parameters whose names start with one of `prefixes` as they are.

    Raises:
        ConfigError: A prefix that no parameter has, or nothing would be left.
    """
    for prefix in prefixes:
        found = [parameter for name, parameter in net.named_parameters() if name.startswith(prefix)]
        if not found:
            tops = sorted({name.split(".")[0] for name, _ in net.named_parameters()})
            raise ConfigError(
                f"freeze={prefix}: no parameter name starts with that; "
                f"the model's parts are {', '.join(tops)}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(f"freeze={','.join(prefixes)}: nothing is left to train")


def training_mode(net: nn.Module, frozen: Sequence[str]) -> None:
    """Put the network into training mode, but for the batch statistics of the frozen parts."""
    net.train()
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name.startswith(tuple(frozen)):
            module.eval()


def compile_parts(net: nn.Module) -> None:
    """Compile the convolutional parts in place.

    Names of weights stay, assignment and losses run as they are.

    Those have shapes that follow the boxes: compiling them would mean compiling again and again.
    """
    for name in ("backbone", "neck", "head", "rpn_head"):
        part = getattr(net, name, None)
        if isinstance(part, nn.Module):
            part.compile()


def class_mapping(model_names: Sequence[str], data_names: Sequence[str]) -> list[int]:
    """Return the data's class index for each class of the model, -1 for one that the data lacks.

    Raises:
        DataError: The two have no class in common.
    """
    lookup = {name: i for i, name in enumerate(data_names)}
    mapping = [lookup.get(name, -1) for name in model_names]
    if all(index < 0 for index in mapping):
        raise DataError(
            f"no class in common: the model has {', '.join(model_names[:6])}; "
            f"the data has {', '.join(data_names[:6])}"
        )
    return mapping


def apply_mapping(labels: Tensor, mapping: Sequence[int]) -> Tensor:
    """Turn a model's class indices (N,) into the data's, -1 where the data lacks the class."""
    return torch.tensor(mapping, dtype=torch.int64)[labels]


def weights_metadata(
    config: ModelConfig,
    names: Sequence[str],
    imgsz: int,
    figures: Mapping[str, Any],
    run: Mapping[str, Any],
    scale: TrainedScale | None = None,
) -> dict[str, Any]:
    """Return what a weights file says of itself; enough to rebuild the model.

    Args:
        config: The model's settings.
        names: Class names in the order of the outputs.
        imgsz: Long side in px that it was trained at.
        figures: Validation figures, if there are any.
        run: Data, epoch and the like, for people.
        scale: Sizes of the objects that it was trained on.
    """
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    document = own_metadata(config, names, imgsz) | {"metrics": numbers, "run": dict(run)}
    if scale is not None:
        document["objects"] = {"px_99": scale.px_99, "px_max": scale.px_max}
        document |= {"gsd": scale.gsd} if scale.gsd is not None else {}
    return document
