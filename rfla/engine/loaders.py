"""The batches of a run: shuffled and augmented for training, by size for validation."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from rfla.cfg import Config
from rfla.data import (
    Annotations,
    Augmentation,
    Batch,
    DetectionDataset,
    EvalSampler,
    Loader,
    TrainSampler,
    build_augmentation,
    build_loader,
)
from rfla.data.image_header import set_max_pixels
from rfla.engine.distributed import World
from rfla.errors import ConfigError, DataError, counted


def training_loader(
    cfg: Config,
    index: Annotations,
    world: World,
    device: torch.device,
    before: Loader | None = None,
) -> tuple[Loader, TrainSampler]:
    """Return the loader of the training split and the sampler that orders it.

    `before`: a loader of the same split whose data set, and its cache, is reused.
    """
    if cfg.batch % world.size:
        raise ConfigError(f"batch={cfg.batch}: not a multiple of the {world.size} devices")
    if len(index) < world.size:
        raise DataError(
            f"{index.name}: {counted(len(index), 'image')}, fewer than the {world.size} devices"
        )
    set_max_pixels(cfg.max_pixels)
    dataset = _dataset(cfg, index, before, build_augmentation(cfg.aug, cfg.epochs))
    sampler = TrainSampler(len(dataset), cfg.batch, cfg.seed, rank=world.rank, world=world.size)
    return _loader(cfg, dataset, sampler, device), sampler


def evaluation_loader(
    cfg: Config,
    index: Annotations,
    world: World,
    device: torch.device,
    before: Loader | None = None,
) -> Loader:
    """Return the loader of a split, each image once (`EvalSampler`), without augmentation.

    Each process gets its share of the batches. `before` is as in `training_loader`.
    """
    set_max_pixels(cfg.max_pixels)
    dataset = _dataset(cfg, index, before)
    sampler = EvalSampler(dataset.padded_sizes(), max(1, cfg.batch), world.rank, world.size)
    return _loader(cfg, dataset, sampler, device)


def _dataset(
    cfg: Config,
    index: Annotations,
    before: Loader | None,
    augmentation: Augmentation | None = None,
) -> DetectionDataset:
    if before:
        return before.dataset
    cache = None if cfg.cache == "off" else cfg.cache
    return DetectionDataset(index, cfg.imgsz, augmentation, cfg.seed, cache)


def _loader(
    cfg: Config,
    dataset: DetectionDataset,
    sampler: TrainSampler | EvalSampler,
    device: torch.device,
) -> Loader:
    return build_loader(
        dataset,
        sampler,
        workers=worker_count(cfg),
        pin_memory=device.type == "cuda",
        timeout=cfg.timeout,
    )


def batches_of(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of a loader.

    Raises:
        DataError: The images cannot be read (any more).
        RuntimeError: A loading process died (`lost_worker`).
    """
    try:
        yield from loader
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # It died while it handed a batch over. torch's own error comes from a signal handler, now
        # or a moment later.
        time.sleep(1)
        raise RuntimeError(f"DataLoader worker has gone ({error})") from error


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn the death of a loading process in this block into one line.

    torch raises it from a signal handler, so it may come at any moment, not only at a batch.

    Raises:
        DataError: A loading process has died.
    """
    try:
        yield
    except RuntimeError as error:
        line = lost_worker(error)
        if not line:
            raise
        raise DataError(line) from None


def lost_worker(error: BaseException) -> str:
    """Return a line for the user if an error says that a loading process died, else nothing.

    torch notices within seconds, in words such as `(pid 123) is killed by signal: Killed. `.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in text:
        return ""
    signal = text.partition("by signal: ")[2].partition(".")[0]
    if "Bus error" in text or "shared memory" in text:
        cause = "/dev/shm is too small for the batches (docker run --shm-size=8g), or use workers=0"
    else:
        cause = "memory may be short: use fewer workers=, a smaller batch=, or cache=false"
    return f"a process that loads images has died{f' ({signal})' if signal else ''}; {cause}"


def worker_count(cfg: Config) -> int:
    """Return the number of loading processes: as set, but not more than there are processors."""
    return min(cfg.workers, os.cpu_count() or 1)
