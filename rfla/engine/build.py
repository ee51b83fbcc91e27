"""From settings to the parts of a training run: data, network, optimiser, schedule, state.

`fill_in` settles what the settings leave open, `build_run` makes the parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rfla.cfg import Config, with_settings
from rfla.cfg.keys import show
from rfla.cfg.keys_used import unused
from rfla.cfg.model_schema import ModelConfig, NormalizeConfig
from rfla.cfg.recipes import RECIPES
from rfla.data import (
    Annotations,
    DataSpec,
    Loader,
    TrainSampler,
    load_data_spec,
    load_index,
)
from rfla.data.common_range import find_common_range
from rfla.data.index import require_objects
from rfla.data.pixel_range import range_of
from rfla.engine import memory
from rfla.engine.device import (
    autocast_dtype,
    cpu_has_bfloat16,
    on_device,
    precision_holds,
    seed_everything,
    use_fast_float32,
)
from rfla.engine.distributed import World, agreed, distribute, gather, main_first
from rfla.engine.ema import EMA
from rfla.engine.field_measurement import check_fields, measure_for_all, shown
from rfla.engine.inference import protocol_of
from rfla.engine.loaders import evaluation_loader, training_loader
from rfla.engine.meter import Meter
from rfla.engine.model_source import compile_parts, freeze, source_model
from rfla.engine.optimizer import build_optimizer, parameter_groups
from rfla.engine.schedule import Schedule, capped_warmup, scaled_steps
from rfla.engine.state import RunState
from rfla.errors import ConfigError, DataError, counted
from rfla.metrics.protocols import Protocol
from rfla.models.detector_fields import measures_fields

RECIPE_EPOCHS = 12  # the length of run that lr_steps belong to, but for recipes with their own

# Where the processor multiplies bfloat16 in hardware, an epoch takes half the time: train longer.
DEMO_BFLOAT16: dict[str, Any] = {"amp": "bf16", "epochs": 8}


@dataclass
class RunParts:
    """Everything that a `Trainer` drives.

    Attributes:
        cfg: The settings, with everything settled.
        world: This process among its peers.
        device: Where it computes.
        protocol: The rules of the figures.
        train_index: Images and boxes that are learnt.
        val_index: Those that are validated.
        train_loader: Batches of the one.
        val_loader: Batches of the other.
        sampler: The order of the training batches.
        model_config: What the network was built from.
        model: The network as a training step calls it.
        state: What changes while the run trains.
        schedule: Learning rate of each step.
        dtype: Half precision of the network's body; None for float32.
        notes: Lines for the user about what was chosen for them.
    """

    cfg: Config
    world: World
    device: torch.device
    protocol: Protocol
    train_index: Annotations
    val_index: Annotations
    train_loader: Loader
    val_loader: Loader
    sampler: TrainSampler
    model_config: ModelConfig
    model: nn.Module
    state: RunState
    schedule: Schedule
    dtype: torch.dtype | None
    notes: list[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return self.train_index.names

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this process sees in an epoch."""
        return self.sampler.batches

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must find again in its data, wherever it has moved to."""
        return {"images": len(self.train_index), "classes": list(self.names)}

    def use_batches_of(self, cfg: Config) -> None:
        """Load training batches of another size, from the first step that was not taken on."""
        self.train_loader.close()
        # Steps are the same as before, batches are not: count from the steps that were taken.
        position = self.state.position
        steps = position.batch // self.cfg.accumulate
        position.batch = steps * cfg.accumulate
        if steps == 0:
            self.state.meter = Meter()

        self.cfg = cfg
        self.train_loader, self.sampler = training_loader(
            cfg, self.train_index, self.world, self.device, self.train_loader
        )

    def halve_val_batch(self) -> bool:
        """Validate with half the images in a batch from now on; False where it is one already."""
        half = self.val_loader.sampler.batch // 2
        if not half:
            return False
        self.val_loader.close()
        smaller = with_settings(self.cfg, {"batch": half})
        self.val_loader = evaluation_loader(
            smaller, self.val_index, self.world, self.device, self.val_loader
        )
        return True

    def close(self) -> None:
        """End the loading processes."""
        self.train_loader.close()
        self.val_loader.close()


def fill_in(cfg: Config, device: torch.device) -> tuple[Config, list[str]]:
    """Fill in what was left open, for a run on `device`.

    Returns:
        The settings, and a line for the user about each choice that was made for them.
    """
    if cfg.resume:  # everything was settled when the run began
        return cfg, []
    changes: dict[str, Any] = {}
    idle = unused(cfg.given, "train", cfg)
    notes = [f"not used by training: {', '.join(idle)}"] if idle else []
    if cfg.recipe != "paper":
        notes.append(f"recipe={cfg.recipe}: {_as_typed(RECIPES[cfg.recipe].settings, cfg)}")
    elif cfg.data == "demo" and device.type == "cpu" and "recipe" not in cfg.given:
        demo = RECIPES["demo"].settings | (DEMO_BFLOAT16 if cpu_has_bfloat16() else {})
        changes = {key: value for key, value in demo.items() if key not in cfg.given}
        notes.append(f"data=demo on a CPU takes recipe=demo: {_as_typed(demo, cfg)}")
        changes["recipe"] = "demo"
    epochs = changes.get("epochs", cfg.epochs)
    recipe = RECIPES[changes.get("recipe", cfg.recipe)].settings
    length = recipe["epochs"] if "lr_steps" in recipe else RECIPE_EPOCHS
    if "lr_steps" not in cfg.given and epochs != length:
        changes["lr_steps"] = scaled_steps(cfg.lr_steps, length, epochs)
    return (with_settings(cfg, changes) if changes else cfg), notes


def _as_typed(settings: Mapping[str, Any], cfg: Config) -> str:
    """The settings of a recipe in effect, as typed.

    Keys that the user gave or that the architecture does not read are left out.
    """
    shown = settings.keys() - cfg.given - set(unused(settings, "train", cfg))
    return " ".join(f"{key}={show(value)}" for key, value in settings.items() if key in shown)


def build_run(cfg: Config, world: World, device: torch.device) -> RunParts:
    """Build data first (the cheapest thing to be wrong), then the network, then what moves it.

    All processes of a run call this, and all go on or none.

    Raises:
        RflaError: Any error that the user can fix.
    """
    with agreed(world):
        check_fields(cfg)
        seed_everything(cfg.seed, cfg.deterministic)
        use_fast_float32(cfg.amp is not False)
        # The main one may have to make the data set, and to fetch the backbone's weights.
        with main_first(world):
            protocol, train_index, val_index = build_data(cfg)
            cfg, range_notes = settle_range(cfg, train_index)
            train_index, val_index = (
                replace(index, value_range=range_of(cfg.normalize))
                for index in (train_index, val_index)
            )
            source = source_model(cfg, train_index.names)
            if source.at_random:  # there were no ImageNet weights: a resumed run looks for none
                cfg = with_settings(cfg, {"pretrained": False})
    with agreed(world):
        dtype = autocast_dtype(device, cfg.amp)
        net = on_device(source.net, device, dtype)
        freeze(net, cfg.freeze)
    normalize = source.config.normalize
    field_notes = _measure_fields(net, cfg, train_index, normalize, world, device)
    cfg, notes = _with_a_batch_that_fits(cfg, net, len(train_index), world, device)
    with agreed(world):
        train_loader, sampler = training_loader(cfg, train_index, world, device)
        val_loader = evaluation_loader(cfg, val_index, world, device)
        state = build_state(net, cfg, device, dtype)
        model = distribute(net, world, device)
        if dtype is not None and not precision_holds(net, device, dtype):
            notes.append(f"amp: {dtype} gives other outputs than float32 here; training in float32")
            dtype = None
        if cfg.compile:
            # Only now: the average stays as it is, and the check had images of another size.
            compile_parts(net)
        return RunParts(
            cfg=cfg,
            world=world,
            device=device,
            protocol=protocol,
            train_index=train_index,
            val_index=val_index,
            train_loader=train_loader,
            val_loader=val_loader,
            sampler=sampler,
            model_config=source.config,
            model=model,
            state=state,
            schedule=schedule_for(cfg, sampler),
            dtype=dtype,
            notes=[*range_notes, *source.notes, *field_notes, *notes],
        )


def settle_range(cfg: Config, train_index: Annotations) -> tuple[Config, list[str]]:
    """Take one range of values for all images of 16 bits; one that was given stands.

    It is stored with the weights: images are then read alike in training and ever after. That of
    weights which are trained further gives way.

    Returns:
        The settings, and a line for the user where a range was found.
    """
    given = cfg.normalize.range is not None or "normalize.range_16" in cfg.given
    found = None if cfg.resume or given else find_common_range(train_index.paths)
    if found is None:
        return cfg, []
    return with_settings(cfg, {"normalize.range_16": tuple(found.limits)}), [found.line()]


def _measure_fields(
    net: nn.Module,
    cfg: Config,
    train_index: Annotations,
    normalize: NormalizeConfig,
    world: World,
    device: torch.device,
) -> list[str]:
    """Measure the receptive fields where the assigner asks for it, and say what they are."""
    if not measures_fields(cfg.assigner) or cfg.resume:  # a state holds those of its run
        return []
    sides = measure_for_all(net, cfg, train_index, normalize, world, device)
    return [f"receptive fields measured: {shown(sides)}"]


def _with_a_batch_that_fits(
    cfg: Config, net: nn.Module, images: int, world: World, device: torch.device
) -> tuple[Config, list[str]]:
    """Settle the size of a batch where the GPU is to decide it.

    Returns:
        The settings, and lines for the user about the batch.
    """
    with agreed(world):
        per_gpu = memory.largest_that_fits(cfg, net, device, images // world.size)
    cfg, notes = memory.settle_batch(cfg, gather(world, per_gpu))
    if cfg.batch > images:
        notes.append(
            f"batch={cfg.batch}: {cfg.train_split} has {counted(images, 'image')}, so a "
            "step sees some more than once"
        )
    return cfg, notes


def build_state(
    net: nn.Module, cfg: Config, device: torch.device, dtype: torch.dtype | None
) -> RunState:
    """Return a run's state before its first step."""
    # bfloat16 needs no scaling, but the scaler also skips a bad step without waiting for a GPU.
    scaler = torch.amp.GradScaler(
        device.type,
        init_scale=2.0**16 if dtype == torch.float16 else 1.0,
        enabled=device.type == "cuda",
    )
    ema = EMA(net, cfg.ema) if cfg.ema else None
    return RunState(net, optimizer_for(net, cfg, device), ema, scaler)


def build_data(cfg: Config) -> tuple[Protocol, Annotations, Annotations]:
    """Return the protocol and both splits.

    Raises:
        RflaError: No data, unreadable data, a split without a box, an unknown protocol, splits with
            different classes.
    """
    spec = data_spec(cfg)
    protocol = protocol_of(cfg, spec)  # refuses a wrong one at once
    train_index = load_index(
        spec,
        cfg.train_split,
        for_training=True,
        fraction=cfg.fraction,
        single_cls=cfg.single_cls,
    )
    require_objects(spec, cfg.train_split, train_index)
    val_index = train_index
    if cfg.val:
        val_index = load_index(spec, cfg.split, single_cls=cfg.single_cls)
        require_objects(spec, cfg.split, val_index)
    if train_index.names != val_index.names:
        raise DataError(
            f"data={cfg.data}: {cfg.train_split} and {cfg.split} name different classes"
        )
    return protocol, train_index, val_index


def data_spec(cfg: Config) -> DataSpec:
    """Return what `data=` names.

    Raises:
        ConfigError: It names nothing.
        DataError: There is no such data (any more).
    """
    if cfg.data is None:
        raise ConfigError(
            "data= is missing: name a data set (data=demo), a data.yaml or a directory; "
            "there is no default"
        )
    try:
        return load_data_spec(cfg.data)
    except DataError as error:
        if not cfg.resume:
            raise
        raise DataError(
            f"{error}; if it has moved, give its new place: data= is allowed with resume="
        ) from None


def optimizer_for(net: nn.Module, cfg: Config, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser of the settings."""
    # `lr_batch` is the batch that `lr0` belongs to: a larger one takes larger steps.
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
    iterations_per_epoch = -(-sampler.batches // cfg.accumulate)
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
