"""Validation: a network over a split, its detections in original pixels, and their figures.

`validate(cfg)` is what `rfla val` does, `validate_epoch` what follows each epoch of a training; the
pass over the images stands in `inference.py`.

Boxes are xyxy px.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from rfla.cfg import Config, model_part, with_settings
from rfla.cfg.model_schema import ModelConfig
from rfla.data import Annotations, DataSpec, load_data_spec, load_index
from rfla.data.pixel_range import range_of
from rfla.engine import memory
from rfla.engine.build import RunParts
from rfla.engine.console import Progress, make_console, metric_line, remark
from rfla.engine.device import autocast_dtype, on_device, select_device, use_fast_float32
from rfla.engine.distributed import (
    World,
    agreed,
    any_of,
    gather,
    join_world,
    lost_peers_named,
)
from rfla.engine.hooks import Stopped, StopSignals
from rfla.engine.inference import (
    Inference,
    Judged,
    Speed,
    detect,
    judge,
    merge_detections,
    protocol_of,
    require_images,
)
from rfla.engine.loaders import evaluation_loader, lost_workers_named
from rfla.engine.model_source import SourceModel, class_mapping, load_trained
from rfla.engine.processes import refuse_several
from rfla.engine.run_dir import claim_run_dir
from rfla.engine.run_log import RunLog
from rfla.engine.validation_files import write_files
from rfla.errors import ConfigError
from rfla.metrics import Detections, Metrics, Study, ground_truth, read_detections, study
from rfla.metrics.input_checks import find_doubts, limit_note
from rfla.metrics.protocols import Protocol
from rfla.metrics.reference import check_reference, require_engine


@dataclass(frozen=True)
class SplitPass:
    """A model that is to run over a split, each process over its share of the images.

    Attributes:
        cfg: The settings.
        model: The network and its classes.
        index: The split.
        mapping: The data's class for each class of the model, as `detect` takes it.
        world: This process among its peers.
        device: Where to compute.
        progress: Is told of each image.
    """

    cfg: Config
    model: SourceModel
    index: Annotations
    mapping: Sequence[int] | None
    world: World
    device: torch.device
    progress: Progress


class SplitDetector(ABC):
    """A way to run a model over the images of a split."""

    @abstractmethod
    def run(self, job: SplitPass) -> tuple[Detections, Speed]:
        """Return what this process found in its share, and the time of each stage."""

    @abstractmethod
    def remarks(self, job: SplitPass, judged: Study) -> list[str]:
        """Return lines for the user about what was found."""


class WholeImages(SplitDetector):
    """Each image goes through the network whole, resized to `imgsz`."""

    def run(self, job: SplitPass) -> tuple[Detections, Speed]:
        """Return what this process found in its share, and the time of each stage."""
        cfg, device = job.cfg, job.device
        use_fast_float32(cfg.amp is not False)
        dtype = autocast_dtype(device, cfg.amp)
        net = on_device(job.model.net, device, dtype)
        inference = Inference(net, job.model.config.normalize, device, dtype)
        loader = evaluation_loader(cfg, job.index, job.world, device)
        try:
            with lost_workers_named(), job.progress.over(len(job.index), "validate") as bar:
                return detect(inference, loader, job.index, job.mapping, bar.step)
        finally:
            loader.close()

    def remarks(self, job: SplitPass, judged: Study) -> list[str]:
        """Say how many images reached the limit of detections."""
        note = limit_note(judged.detections, job.model.config.test.max_det)
        return [note] if note else []


ModelOpener = Callable[[str, ModelConfig, torch.device], SourceModel]
"""Opens the file of `model=` with these settings, for a device."""


def validate(cfg: Config, detector: SplitDetector, load: ModelOpener) -> Metrics:
    """Validate as `rfla val` does: figures on a split, written to a run directory.

    Args:
        cfg: Settings; `data` is needed, and `model` (a weights file) or `predictions` (a COCO
            detections file).
        detector: How the model runs over the images.
        load: Opens the file of `model`.

    Returns:
        The figures.

    Raises:
        RflaError: Any error that the user can fix, in one line.
    """
    if cfg.data is None:
        raise ConfigError(
            "data= is missing: name a data set, a data.yaml or a directory; there is no default"
        )
    refuse_several(cfg.device, "val")
    device = select_device(cfg.device)
    world = join_world(device, cfg.timeout)
    return _validate(cfg, world, device, detector, load)


def _validate(
    cfg: Config, world: World, device: torch.device, detector: SplitDetector, load: ModelOpener
) -> Metrics:
    console = make_console(quiet=not world.is_main)
    say = partial(remark, console)
    with agreed(world):
        spec = load_data_spec(str(cfg.data))
        protocol = protocol_of(cfg, spec)
        if cfg.engine != "rfla":
            require_engine(cfg.engine, protocol)
        given = cfg.predictions is not None
        index = load_index(
            spec,
            cfg.split,
            fraction=cfg.fraction,
            single_cls=cfg.single_cls,
            need_images=not given,
            value_range=range_of(cfg.normalize),
        )
        console.print(f"{index.name}: {index.size()}")
        found, speed = None, None
        if given:
            found = _given_detections(cfg, spec, index, say)
        else:
            model = load(str(cfg.model), model_part(cfg), device)
            mapping = _mapping_for(model, cfg, index, console)
    if found is None:
        job = SplitPass(cfg, model, index, mapping, world, device, Progress(console))
        found, speed = _detect(job, detector)
    judged = study(ground_truth(index), found, protocol) if world.is_main else None
    metrics = gather(world, judged.metrics if judged is not None else None)[0]
    assert metrics is not None, "the main process has judged"
    if judged is None:
        return metrics
    if given:
        doubts = find_doubts(judged.gt, judged.detections, judged.matches)
    else:
        doubts = detector.remarks(job, judged)
    for doubt in filter(None, doubts):
        say(doubt)
    _report(cfg, index, judged, speed, console)
    return metrics


def _report(
    cfg: Config, index: Annotations, judged: Study, speed: Speed | None, console: Console
) -> None:
    """Write the files of the run and print the figures."""
    metrics = judged.metrics
    with claim_run_dir(cfg, World(), "val") as run_dir:
        write_files(cfg, run_dir, index, judged, speed)
    console.print(metrics.table() if cfg.verbose else metric_line(metrics.figures, best=False))
    if cfg.engine != "rfla":
        console.print(check_reference(metrics, judged.gt, judged.detections, cfg.engine).table())
    if speed is not None:
        console.print(
            ", ".join(f"{stage} {value:.1f} ms" for stage, value in speed.per_image().items())
            + " an image"
        )
    console.print(
        f"results in {run_dir}" + (f"; open {run_dir / 'report.html'}" if cfg.plots else "")
    )


def _detect(job: SplitPass, detector: SplitDetector) -> tuple[Detections, Speed]:
    """Run a model over a split, each process over its share.

    Returns:
        The detections of all processes, and the time of each stage in the main one.

    Raises:
        RflaError: The images cannot be read, a loading process has died, or memory ran out.
    """
    with lost_peers_named(job.world), memory.full_memory_named(job.cfg.batch):
        shards = gather(job.world, detector.run(job))
    with agreed(job.world):
        require_images(job.index, sum(speed.images for _, speed in shards))
    return merge_detections([one for one, _ in shards]), shards[0][1]


def validate_epoch(parts: RunParts, log: RunLog, signals: StopSignals) -> Judged | None:
    """Judge the evaluated network of a training on its validation split.

    Where the memory of a process runs out, with half as many images at a time in all of them, and
    so on down to one.

    Returns:
        Figures and detections in the main process, None in the others.

    Raises:
        Stopped: Ctrl-C or a signal came to any process.
    """
    while True:
        shard, full = memory.unless_full(lambda: _detect_in_batches(parts, log, signals))
        # What one process meets all have to know: else the others would wait for its detections.
        met = (signals.requested, full is not None)
        stop, someone_full = any_of(parts.world, met, parts.device)
        if stop:
            raise Stopped
        if not someone_full:
            break
        if not parts.halve_val_batch():
            raise full or torch.OutOfMemoryError("CUDA out of memory in another process")
        log.say("out of memory in the validation: going on with smaller batches", "yellow")
    shards = [one for one in gather(parts.world, shard) if one is not None]
    with agreed(parts.world):
        require_images(parts.val_index, sum(speed.images for _, speed in shards))
    if not parts.world.is_main:
        return None
    found = merge_detections([one for one, _ in shards])
    return judge(parts.val_index, found, parts.protocol)


def _detect_in_batches(
    parts: RunParts, log: RunLog, signals: StopSignals
) -> tuple[Detections, Speed] | None:
    """Return what this process finds in its images; None where a signal ended it."""
    with log.progress.over(len(parts.val_index), "validate") as bar, suppress(Stopped):

        def done(count: int) -> None:
            bar.step(count)
            if signals.requested:
                raise Stopped

        normalize = parts.model_config.normalize
        inference = Inference(parts.state.evaluated_net, normalize, parts.device, parts.dtype)
        return detect(inference, parts.val_loader, parts.val_index, progress=done)
    return None


def judge_weights(
    path: Path,
    cfg: Config,
    index: Annotations,
    protocol: Protocol,
    device: torch.device,
    dtype: torch.dtype | None,
) -> Judged:
    """Judge a weights file on a split of the same classes, in this process alone.

    Where memory runs out, with half as many images at a time, and so on down to one.
    """
    model = load_trained(path)
    net = on_device(model.net, device, dtype)
    inference = Inference(net, model.config.normalize, device, dtype)
    while True:
        with closing(evaluation_loader(cfg, index, World(), device)) as loader:
            shard, full = memory.unless_full(partial(detect, inference, loader, index))
        if shard is not None:
            found, speed = shard
            require_images(index, speed.images)
            return judge(index, found, protocol)
        if cfg.batch <= 1:
            raise full or torch.OutOfMemoryError("CUDA out of memory")
        cfg = with_settings(cfg, {"batch": cfg.batch // 2})


def _given_detections(
    cfg: Config, spec: DataSpec, index: Annotations, say: Callable[[str], None]
) -> Detections:
    """Read `cfg.predictions`.

    They may be of the whole split and of all classes where `cfg` takes a part, or one class.

    Raises:
        MetricError: Not detections of this data set.
    """
    source = str(cfg.predictions)
    if cfg.fraction == 1 and not cfg.single_cls:
        return read_detections(source, ground_truth(index), say)
    whole = ground_truth(load_index(spec, cfg.split, need_images=False))
    if (
        cfg.single_cls and 1 not in whole.category_ids
    ):  # the id that a run with single_cls=true writes
        whole = replace(
            whole, names=(*whole.names, "object"), category_ids=(*whole.category_ids, 1)
        )
    found = read_detections(source, whole, say)
    row_of = {identity: row for row, identity in enumerate(index.image_ids.tolist())}
    rows = np.array([row_of.get(identity, -1) for identity in whole.image_ids], np.int64)[
        found.image_index
    ]
    kept = rows >= 0
    labels = found.labels[kept] if not cfg.single_cls else np.zeros(int(kept.sum()), np.int64)
    assert found.sides is not None
    return Detections(rows[kept], found.boxes[kept], found.scores[kept], labels, found.sides[kept])


def _mapping_for(
    model: SourceModel, cfg: Config, index: Annotations, console: Console
) -> list[int] | None:
    """Match a model's classes with the data's by name.

    Returns:
        The data's class for each of the model's, None where they are the same.

    Raises:
        DataError: Model and data have no class in common.
    """
    if cfg.single_cls:
        return [0] * len(model.names)
    if tuple(model.names) == tuple(index.names):
        return None
    mapping = class_mapping(model.names, index.names)
    absent = [name for name in index.names if name not in model.names]
    remark(
        console,
        f"the model's classes differ from the data's and are matched by name"
        f"{'; it never learnt ' + ', '.join(absent) if absent else ''}",
    )
    return mapping
