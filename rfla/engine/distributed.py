"""Several processes as one: who am I, wait for the others, agree, gather what each found.

The processes are those of `torchrun` (see docs/multi_gpu.md); a run of one process never imports or
sends anything.
"""

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rfla.errors import ConfigError, RflaError

T = TypeVar("T")
LOST = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "connection timed out",
    "NCCL",
    "Timed out",
)


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0


def world_size() -> int:
    """Return the number of processes that `torchrun` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_world(device: torch.device) -> World:
    """Join the processes that `torchrun` started; alone, return a world of one.

    A process joins once and stays until it ends: a script may train, validate and predict one after
    the other.

    Args:
        device: What this process computes on (`select_device` gives each its own GPU).
    """
    size = world_size()
    if size == 1:
        return World()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={size} is set, but not {', '.join(missing)}: start with torchrun, or unset it"
        )
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # What is gathered from the host (detections of a validation) goes by gloo: it would not fit
        # into a full GPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=10))
        atexit.register(dist.destroy_process_group)
    return world


def gather(world: World, value: T) -> list[T]:
    """Return every process's `value`, by rank (anything picklable between our own processes, small or arrays)."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def any_of(world: World, flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether any process raised it, so that all act together."""
    if world.size == 1:
        return list(flags)
    tensor = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [bool(value) for value in tensor.tolist()]


def mean_of(world: World, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean over the processes of each named 0-d tensor."""
    if world.size == 1 or not values:
        return dict(values)
    names = list(values)  # the same order in all: that of the losses
    stacked = torch.stack([values[name].detach().float() for name in names])
    dist.all_reduce(stacked)
    return dict(zip(names, stacked / world.size, strict=True))


@contextmanager
def main_first(world: World) -> Iterator[None]:
    """Let the main process run the block before the others: it may make files that they then find (a data set).

    Use it once between two agreements: a process that fails in the block meets no further barrier.
    """
    if world.size > 1 and not world.is_main:
        dist.barrier()
    try:
        yield
    finally:
        if world.size > 1 and world.is_main:
            dist.barrier()


@contextmanager
def agreed(world: World) -> Iterator[None]:
    """End every process if one cannot go on, with one line from the main one.

    Raises:
        RflaError: In the main process: what is wrong, and where if it is not wrong everywhere.
        SystemExit: In the others, which say nothing.
    """
    error: RflaError | None = None
    try:
        yield
    except RflaError as raised:
        error = raised
    problems = gather(world, str(error) if error is not None else None)
    failed = [rank for rank, problem in enumerate(problems) if problem is not None]
    if not failed:
        return
    if not world.is_main:
        raise SystemExit(RflaError.exit_code)
    if error is not None:
        raise error
    raise RflaError(f"process {failed[0]}: {problems[failed[0]]}")


def lost_peer(world: World, error: BaseException) -> bool:
    """Whether an error only says that another process of the run has died."""
    kinds = (RuntimeError,)  # torch.distributed.DistBackendError and its kin are RuntimeErrors
    return world.size > 1 and isinstance(error, kinds) and any(word in str(error) for word in LOST)
