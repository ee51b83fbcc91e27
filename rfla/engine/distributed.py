"""Several processes as one: who am I, wait for the others, gather what each found."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


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


def join_world(device: torch.device) -> World:
    """Join the processes that `torchrun` started; alone, return a world of one.

    Args:
        device: What the person chose; each process of a GPU run takes the GPU of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(world.local_rank)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=10))
    return world


def leave_world(world: World) -> None:
    """Close the connection to the peers."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def gather(world: World, value: T) -> list[T]:
    """Return every process's `value`, by rank (anything picklable between our own processes, small or arrays)."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def any_of(world: World, flag: bool, device: torch.device) -> bool:
    """Return whether any process says yes, so that all stop together."""
    if world.size == 1:
        return flag
    tensor = torch.tensor(int(flag), device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())
