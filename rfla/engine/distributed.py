"""Several processes as one: who am I, wait for the others, agree, average gradients, gather.

The processes are those of `torchrun` (see docs/multi_gpu.md); a run of one process never joins a
group or sends anything.
"""

import atexit
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from rfla.errors import ConfigError, RflaError, one_line

T = TypeVar("T")
TO_JOIN = timedelta(minutes=10)
# What waits longer than `timeout=` is not stopped, it may evaluate or prepare data: `PeerWatch`
# knows which is which, so that the library's own limit may be long.
TO_ANSWER = timedelta(hours=6)
LOST_PEER = (  # words of torch, gloo and NCCL
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

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0


class LostPeerError(RflaError):
    """Another process of the run has died."""


def environment_number(name: str, default: int, largest: int = 2**16 - 1) -> int:
    """Return a number that `torchrun` sets in the environment of its processes.

    Raises:
        ConfigError: It is no whole number from 0 to `largest`.
    """
    text = os.environ.get(name, str(default)).strip()
    if not (text.isascii() and text.isdigit() and int(text) <= largest):
        raise ConfigError(
            f"{name}={text[:40]!r} in the environment is not a whole number from 0 to {largest}: "
            "start with torchrun, or unset it"
        )
    return int(text)


def world_size() -> int:
    """Return the number of processes that `torchrun` started, 1 without it.

    Raises:
        ConfigError: WORLD_SIZE is no number.
    """
    return max(environment_number("WORLD_SIZE", 1), 1)


def join_world(device: torch.device, timeout: float = 60.0) -> World:
    """Join the processes that `torchrun` started; alone, return a world of one.

    A process joins once and stays until it ends: a script may train, validate and predict one after
    the other.

    Args:
        device: What this process computes on (`select_device` gives each its own GPU).
        timeout: Seconds without a sign of life after which another process counts as stopped.

    Raises:
        ConfigError: The environment is not that of `torchrun`, or the others cannot be reached.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = world_size()
    if size == 1:
        return World()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={size} is set, but not {', '.join(missing)}: "
            "start with torchrun, or unset it"
        )
    rank, port = environment_number("RANK", 0, size - 1), environment_number("MASTER_PORT", 0)
    world = World(rank, size)
    if not dist.is_initialized():
        # What is gathered from the host (detections of a validation) goes by gloo: it would not fit
        # into a full GPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        host = os.environ["MASTER_ADDR"]
        try:
            socket.getaddrinfo(host, port)  # the library would look for the host for ten minutes
            store, _, _ = next(rendezvous("env://", timeout=TO_JOIN))
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=TO_ANSWER
            )
        except (RuntimeError, ValueError, socket.gaierror) as error:
            reason = one_line(error)
            raise ConfigError(
                f"process {rank} of {size} cannot join the others at {host}:{port}: {reason}"
            ) from error
        atexit.register(dist.destroy_process_group)
        PeerWatch(world, host, port, timeout).start()
    return world


def distribute(net: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return the network as a training step calls it: it averages gradients over the processes."""
    if world.size == 1:
        return net
    return nn.parallel.DistributedDataParallel(
        net, device_ids=[device.index] if device.type == "cuda" else None
    )


class PeerWatch:
    """Notices a process of the run that has been stopped, which no closed connection would tell.

    Every process counts up a number of its own on the store that all share, twice a second, in a
    thread: also while it evaluates or waits. One whose number stands still for `timeout` seconds
    has stopped; then every other process ends, one of them with a line.

    Args:
        world: This process among its peers.
        host: Where the store is.
        port: Its port.
        timeout: Seconds.
    """

    EVERY = 0.5  # s

    # What the line ends with: how to go on. The run that starts writes it here.
    advice: Callable[[], str] = staticmethod(lambda: "start again")

    def __init__(self, world: World, host: str, port: int, timeout: float) -> None:
        self.world, self.host, self.port, self.timeout = world, host, port, timeout
        self.seen = dict.fromkeys(range(world.size), time.monotonic())

    def start(self) -> None:
        """Watch until this process ends."""
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, daemon=True).start()

    def _exchange(self) -> None:
        """Count up, and see who else does. This may block: a stopped process can hold the store."""
        counts = dict.fromkeys(range(self.world.size), -1)
        # A store that has gone went with its process, which the next exchange of figures notices.
        with suppress(RuntimeError):
            store = dist.TCPStore(  # type: ignore[attr-defined]
                self.host, self.port, wait_for_workers=False, timeout=TO_ANSWER
            )
            while True:
                store.add(f"rfla/alive/{self.world.rank}", 1)
                for rank in counts:
                    count = store.add(f"rfla/alive/{rank}", 0)
                    if count != counts[rank]:
                        counts[rank], self.seen[rank] = count, time.monotonic()
                time.sleep(self.EVERY)

    def _judge(self) -> None:
        """End this process once another one has stopped."""
        before = time.monotonic()
        while True:
            time.sleep(self.EVERY)
            now = time.monotonic()
            if now - before > 10 * self.EVERY:  # this process itself was stopped meanwhile
                self.seen = dict.fromkeys(self.seen, now)
            before = now
            stopped = self.stopped(now)
            if stopped:
                self._end(stopped)

    def stopped(self, now: float) -> list[int]:
        """Return the ranks of the other processes that have stopped.

        Where the store does not answer, its process, the main one, has stopped: nothing can be
        known of the rest.
        """
        silent = [rank for rank, seen in self.seen.items() if now - seen > self.timeout]
        return [0] if self.world.rank in silent and 0 in silent else silent

    def _end(self, stopped: Sequence[int]) -> None:
        alive = [rank for rank in range(self.world.size) if rank not in stopped]
        if self.world.rank == alive[0]:
            print(
                f"error: process {stopped[0]} of this run has stopped (no sign of life for "
                f"{self.timeout:g} s); {self.advice()}",
                file=sys.stderr,
                flush=True,
            )
        # The main thread waits for the stopped process and cannot be reached.
        os._exit(RflaError.exit_code)


def gather(world: World, value: T) -> list[T]:
    """Return every process's `value`, by rank: anything that our own processes can exchange."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def any_of(world: World, flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether any process raised it, so that all act together."""
    return [bool(value) for value in largest_of(world, flags, device)]


def largest_of(world: World, values: Sequence[float], device: torch.device) -> list[float]:
    """Return the largest of each value over the processes."""
    if world.size == 1:
        return list(values)
    tensor = torch.tensor([float(value) for value in values], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


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
    """Let the main process run the block before the others: it may make files that they then find.

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
    # Everybody must take part, also who failed: else the others would wait for ever.
    problems = gather(world, str(error) if error is not None else None)
    failed = [rank for rank, problem in enumerate(problems) if problem is not None]
    if not failed:
        return
    if not world.is_main:
        raise SystemExit(RflaError.exit_code)
    if error is not None:
        raise error
    raise RflaError(f"process {failed[0]}: {problems[failed[0]]}")


@contextmanager
def lost_peers_named(world: World) -> Iterator[None]:
    """Turn an error that only says that another process has died into a line.

    Raises:
        LostPeerError: Another process has died.
    """
    try:
        yield
    except (
        RuntimeError
    ) as error:  # torch.distributed.DistBackendError and its kin are RuntimeErrors
        if world.size == 1 or not any(word in str(error) for word in LOST_PEER):
            raise
        raise LostPeerError("another process of this run has died") from None
