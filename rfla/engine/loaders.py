"""The loaders of a run: shuffled and augmented for training, in file order for validation."""

import os
import time
from collections.abc import Iterator
from typing import Literal

import torch

from rfla.cfg import Config
from rfla.data import (
    Batch,
    BoxIndex,
    DetectionDataset,
    EvalSampler,
    Loader,
    TrainSampler,
    build_augmentation,
    build_loader,
)
from rfla.engine.distributed import World
from rfla.errors import ConfigError, DataError

STRIDE = 32  # px: images are padded to a multiple of it


def training_loader(
    cfg: Config, index: BoxIndex, world: World, device: torch.device
) -> tuple[Loader, TrainSampler]:
    """Return the loader of the training split and the sampler that orders it."""
    if cfg.batch % world.size:
        raise ConfigError(f"batch={cfg.batch}: not a multiple of the {world.size} devices")
    if len(index) < world.size:
        raise DataError(f"{index.name}: {len(index)} images are too few for {world.size} devices")
    dataset = DetectionDataset(
        index, cfg.imgsz, build_augmentation(cfg.aug), seed=cfg.seed, cache=cache_place(cfg)
    )
    sampler = TrainSampler(len(dataset), cfg.batch, cfg.seed, rank=world.rank, world=world.size)
    return build_loader(
        dataset, cfg.batch, worker_count(cfg), sampler, STRIDE, device.type == "cuda"
    ), sampler


def evaluation_loader(cfg: Config, index: BoxIndex, world: World, device: torch.device) -> Loader:
    """Return the loader of a split in file order, without augmentation.

    Each process gets its share of the batches.
    """
    dataset = DetectionDataset(index, cfg.imgsz, cache=cache_place(cfg))
    sampler = EvalSampler(len(dataset), max(1, cfg.batch), world.rank, world.size)
    return build_loader(
        dataset, cfg.batch, worker_count(cfg), sampler, STRIDE, device.type == "cuda"
    )


def batches_of(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of a loader.

    What a loading process found wrong is told in its own words alone.

    Raises:
        DataError: The images cannot be read (any more).
        RuntimeError: A loading process died (`lost_worker`).
    """
    try:
        yield from loader
    except DataError as error:  # torch puts the process's traceback before the last line
        last = str(error).strip().splitlines()[-1]
        raise DataError(last.removeprefix("rfla.errors.DataError: ")) from None
    except (
        ConnectionError,
        EOFError,
        FileNotFoundError,
    ) as error:  # it died while it handed a batch over
        time.sleep(1)  # torch's own error comes from a signal handler, now or a moment later
        raise RuntimeError(f"DataLoader worker has gone ({error})") from error


def lost_worker(error: BaseException) -> str:
    """Return what to tell the person where an error says that a loading process died.

    An empty text for other errors.

    torch notices within seconds; `(pid 123) is killed by signal: Killed. ` is in its words.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in text:
        return ""
    signal = text.partition("by signal: ")[2].partition(".")[0]
    if "Bus error" in text or "shared memory" in text:
        cause = "/dev/shm is too small for the batches (docker run --shm-size=8g), or use workers=0"
    else:
        cause = "memory may be short: use fewer workers=, a smaller batch=, or cache=off"
    return f"a process that loads images has died{f' ({signal})' if signal else ''}; {cause}"


def worker_count(cfg: Config) -> int:
    """Return the number of loading processes: what was asked for, but not more than there are processors."""
    return min(cfg.workers, os.cpu_count() or 1)


def cache_place(cfg: Config) -> Literal["ram", "disk"] | bool:
    """Return where decoded images are kept."""
    return False if cfg.cache == "off" else cfg.cache
