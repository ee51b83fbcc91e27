"""From settings to the parts of a training run: data, network, optimiser, schedule, run directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

import rfla
from rfla.cfg import Config, model_part
from rfla.cfg.model_schema import ModelConfig
from rfla.data import (
    BoxIndex,
    DataSpec,
    Loader,
    TrainSampler,
    load_data_spec,
    load_index,
)
from rfla.engine import memory
from rfla.engine.device import autocast_dtype, seed_everything, use_fast_float32
from rfla.engine.distributed import World, agreed, gather, main_first
from rfla.engine.loaders import evaluation_loader, training_loader
from rfla.engine.model_source import SourceModel, fine_tune, is_weights
from rfla.engine.optimizer import build_optimizer, parameter_groups
from rfla.engine.recipe import random_start_advice
from rfla.engine.schedule import Schedule, capped_warmup
from rfla.engine.validator import protocol_of
from rfla.errors import ConfigError, DataError
from rfla.metrics import Detections
from rfla.models import build_from_config, load_pretrained_backbone


@dataclass
class RunParts:
    """Everything that a `Trainer` drives; `cfg` are the settings with everything settled."""

    cfg: Config
    world: World
    device: torch.device
    spec: DataSpec
    train_index: BoxIndex
    val_index: BoxIndex
    train_loader: Loader
    val_loader: Loader
    sampler: TrainSampler
    net: nn.Module
    model_config: ModelConfig
    names: tuple[str, ...]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    notes: list[str] = field(default_factory=list)
    last_detections: Detections | None = None
    best_detections: Detections | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this process sees in an epoch."""
        return -(-self.sampler.length // self.sampler.batch)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]


def build_run(cfg: Config, world: World, device: torch.device) -> RunParts:
    """Build data first (the cheapest thing to be wrong), then the network, then what moves it.

    All processes of a run call this, and all go on or none.

    Raises:
        RflaError: Anything that the person can mend.
    """
    with agreed(world):
        spec, train_index, val_index, source = build_data_and_source(cfg, world)
    with agreed(world):
        net = source.net.to(device)
        freeze(net, cfg.freeze)
        if (
            autocast_dtype(device, cfg.amp) is not None
        ):  # half-precision convolutions are fastest with channels last
            net = net.to(memory_format=torch.channels_last)
        per_gpu = memory.largest_that_fits(cfg, net, device, len(train_index) // world.size)
    cfg, notes = memory.settle_batch(cfg, gather(world, per_gpu))
    if cfg.batch > len(train_index):
        notes.append(
            f"batch={cfg.batch}: {cfg.train_split} has {len(train_index)} images, a step sees some repeatedly"
        )
    with agreed(world):
        train_loader, sampler = training_loader(cfg, train_index, world, device)
        val_loader = evaluation_loader(cfg, val_index, world, device)
        return RunParts(
            cfg, world, device, spec, train_index, val_index, train_loader, val_loader, sampler,
            net, source.config, source.names,
            optimizer=optimizer_for(net, cfg, device),
            schedule=schedule_for(cfg, sampler),
            notes=[*source.notes, *notes],
        )  # fmt: skip


def build_data_and_source(
    cfg: Config, world: World
) -> tuple[DataSpec, BoxIndex, BoxIndex, SourceModel]:
    """Return the data set, its two splits and the network on the CPU; seeds everything before.

    Raises:
        RflaError: No data, unreadable data, an unknown protocol, splits with different classes, a
            wrong weights file.
    """
    seed_everything(cfg.seed, cfg.deterministic)
    use_fast_float32(cfg.amp is not False)
    with main_first(world):  # it may have to make the data set, and to fetch the backbone's weights
        spec = data_spec(cfg)
        protocol_of(cfg, spec)  # refuses a wrong one at once
        train_index = load_index(
            spec,
            cfg.train_split,
            for_training=True,
            fraction=cfg.fraction,
            single_cls=cfg.single_cls,
        )
        val_index = (
            load_index(spec, cfg.split, single_cls=cfg.single_cls) if cfg.val else train_index
        )
        if train_index.names != val_index.names:
            raise DataError(
                f"data={cfg.data}: {cfg.train_split} and {cfg.split} name different classes"
            )
        return spec, train_index, val_index, source_model(cfg, train_index.names)


def data_spec(cfg: Config) -> DataSpec:
    """Return what `data=` names.

    Raises:
        ConfigError: It names nothing.
        DataError: There is no such data (any more).
    """
    if cfg.data is None:
        raise ConfigError(
            "data= is missing: name a data set (data=demo), a data.yaml or a directory; it is never guessed"
        )
    try:
        return load_data_spec(cfg.data)
    except DataError as error:
        if not cfg.resume:
            raise
        raise DataError(
            f"{error}; if it has moved, say where to: data= may be given with resume="
        ) from None


def source_model(cfg: Config, names: Sequence[str]) -> SourceModel:
    """Return a new network with an ImageNet backbone if one can be had, or one that starts from a weights file."""
    config = model_part(cfg)
    if is_weights(cfg.model):
        return fine_tune(str(cfg.model), config, names)
    if cfg.pretrained:
        net = build_from_config(config, num_classes=len(names))
        if load_pretrained_backbone(net):
            return SourceModel(net, config, tuple(names))
    config = learn_everything(config)
    return SourceModel(
        build_from_config(config, len(names)), config, tuple(names), random_start_advice(cfg)
    )


def learn_everything(config: ModelConfig) -> ModelConfig:
    """Return the settings with nothing frozen and batch norm learning, for a backbone that starts at random."""
    backbone = config.backbone.model_copy(
        update={"frozen_stages": -1, "norm_eval": False, "norm_trainable": True}
    )
    return config.model_copy(update={"backbone": backbone})


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
                f"freeze={prefix}: no parameter starts so; the model's parts are {', '.join(tops)}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(f"freeze={','.join(prefixes)}: nothing is left to train")


def training_mode(net: nn.Module, frozen: Sequence[str]) -> None:
    """Put the network into training mode, but for the batch statistics of the parts that are frozen by name."""
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


def distribute(net: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return the network as the training step calls it: itself, or averaging its gradients over the processes."""
    if world.size == 1:
        return net
    return nn.parallel.DistributedDataParallel(
        net, device_ids=[device.index] if device.type == "cuda" else None
    )


def optimizer_for(net: nn.Module, cfg: Config, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser of the settings."""
    lr = cfg.lr0 * (cfg.batch * cfg.accumulate / cfg.lr_batch if cfg.lr_batch else 1.0)
    groups = parameter_groups(
        net,
        lr,
        cfg.weight_decay,
        cfg.bias_lr_mult,
        cfg.bias_decay,
        cfg.backbone_lr_mult,
        cfg.norm_decay,
    )
    return build_optimizer(cfg.optimizer, groups, lr, cfg.momentum, fused=device.type == "cuda")


def schedule_for(cfg: Config, sampler: TrainSampler) -> Schedule:
    """Return the learning-rate schedule."""
    batches = -(-sampler.length // sampler.batch)
    iterations_per_epoch = -(-batches // cfg.accumulate)
    return Schedule(
        epochs=cfg.epochs,
        iterations_per_epoch=iterations_per_epoch,
        steps=cfg.lr_steps,
        gamma=cfg.lr_gamma,
        cosine=cfg.cos_lr,
        final=cfg.lrf,
        warmup_iterations=capped_warmup(cfg.warmup_iters, cfg.epochs * iterations_per_epoch),
        warmup_ratio=cfg.warmup_ratio,
        warmup=cfg.warmup,
    )


def weights_metadata(
    config: ModelConfig,
    names: Sequence[str],
    imgsz: int,
    figures: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a weights file says of itself; enough to rebuild the model.

    Args:
        config: The model's settings.
        names: Class names in the order of the outputs.
        imgsz: Long side in px that it was trained at.
        figures: Validation figures, if there are any.
        run: Data, epoch and the like, for people.
    """
    return {
        "format": 1,
        "version": rfla.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": config.model_dump(mode="json"),
        "names": list(names),
        "imgsz": imgsz,
        "metrics": {
            name: value for name, value in figures.items() if isinstance(value, int | float)
        },
        "run": dict(run),
    }
