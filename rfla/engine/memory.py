"""Memory: what was used, the largest batch that fits (`batch=-1`), smaller ones when it ran out.

Shapes: B images of a batch.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from rfla.cfg import Config, with_settings
from rfla.engine.device import autocast, autocast_dtype
from rfla.errors import ConfigError, RflaError
from rfla.models.ranks import without_ranks
from rfla.sizes import padded_side

T = TypeVar("T")

SHARE = 0.85  # of the GPU's memory that batch=-1 may fill: real batches vary in size and boxes
LARGEST = 256
TRIAL_BOXES = 200
OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
    "can't allocate memory",
)


def peak_mb(device: torch.device) -> float:
    """Return the peak in MB so far: of a GPU's tensors, else of this process (0 if unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def ran_out(error: BaseException) -> bool:
    """Whether an error means that a GPU's memory is full.

    Libraries below torch say it in words of their own.
    """
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in OUT_OF_MEMORY)
    )


def free_after(error: BaseException) -> None:
    """Give back the memory that a step took which did not fit."""
    error.__traceback__ = None  # its frames hold the tensors that did not fit
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unless_full(work: Callable[[], T]) -> tuple[T | None, RuntimeError | None]:
    """Return what `work` returns, or the error that says that a GPU's memory is full."""
    try:
        return work(), None
    except RuntimeError as error:
        if not ran_out(error):
            raise
        free_after(error)
        return None, error


@contextmanager
def full_memory_named(batch: int) -> Iterator[None]:
    """Turn a full GPU in this block into one line.

    Raises:
        RflaError: Memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise RflaError(
            f"out of memory with batch={batch}: use a smaller batch= or imgsz="
        ) from error


def largest_batch(fits: Callable[[int], bool], limit: int = LARGEST) -> int:
    """Return the largest batch that `fits`, by doubling and then halving the gap.

    It is 0 if not even one image fits.
    """
    # `good` fits and `bad` does not; what is between them is not known yet.
    good, bad = 0, limit + 1
    trial = 1
    while trial < bad:
        if fits(trial):
            good = trial
            trial = min(trial * 2, limit) if trial < limit else bad
        else:
            bad = trial
    while bad - good > max(1, good // 8):  # an eighth is near enough; each trial costs seconds
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def largest_that_fits(cfg: Config, net: nn.Module, device: torch.device, images: int) -> int:
    """Return the most images that this GPU can train with at once; 0 without `batch=-1`.

    Args:
        cfg: Settings.
        net: The network, on `device`.
        device: A GPU.
        images: Of this process in an epoch; more would only be repeats.

    Raises:
        ConfigError: Not a GPU, or not even one image fits.
    """
    if cfg.batch != -1:
        return 0
    if device.type != "cuda":
        raise ConfigError(
            "batch=-1 looks for the largest batch that fits into a GPU's memory; "
            "on a CPU give a number"
        )
    found = largest_batch(lambda size: _fits(cfg, net, device, size), min(LARGEST, max(images, 1)))
    if not found:
        raise ConfigError(
            f"batch=-1: not even one image of imgsz={cfg.imgsz} fits; "
            "choose a smaller imgsz or model"
        )
    return found


def settle_batch(cfg: Config, per_gpu: Sequence[int]) -> tuple[Config, list[str]]:
    """Replace `batch=-1` by what the fullest of the GPUs can take, times their number.

    Args:
        cfg: Settings; returned as they are if `batch` is a number.
        per_gpu: What `largest_that_fits` found in each process.
    """
    if cfg.batch != -1:
        return cfg, []
    batch = min(per_gpu) * len(per_gpu)
    where = "the GPU's memory" if len(per_gpu) == 1 else f"the memory of {len(per_gpu)} GPUs"
    return with_settings(cfg, {"batch": batch}), [
        f"batch=-1: training with batch={batch}, which fits into {where}"
    ]


def _fits(cfg: Config, net: nn.Module, device: torch.device, size: int) -> bool:
    """Whether a training step with `size` images of the full square size fits into `SHARE`."""
    dtype = autocast_dtype(device, cfg.amp)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    images, targets = trial_batch(size, round(cfg.imgsz * (1 + cfg.multi_scale)), device)
    # A trial is no training: what the norm layers have seen of noise is put back afterwards.
    kept = {
        key: value.clone()
        for key, value in net.state_dict().items()
        if "running_" in key or "num_batches" in key
    }
    try:
        net.train()
        # Processes with other GPUs try other sizes: they must not wait for each other.
        with without_ranks(), autocast(device, dtype):
            losses = net(images, targets)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        # What a run adds after the trial, 4 bytes each for a weight that learns: two moments of
        # AdamW and the averaged copy.
        optimizer = (
            3
            * 4
            * sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
        )
        used = torch.cuda.max_memory_reserved(device) + optimizer
        return bool(used < SHARE * torch.cuda.get_device_properties(device).total_memory)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return False
    finally:
        net.zero_grad(set_to_none=True)
        net.load_state_dict(kept, strict=False)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)  # the trials are no part of `mem`


def trial_batch(
    size: int, imgsz: int, device: torch.device
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return noise (B, 3, S, S) and targets with many small boxes, to measure with."""
    side = padded_side(imgsz)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(TRIAL_BOXES, 2, generator=generator) * (side - 16)
    boxes = torch.cat([corners, corners + 12], dim=1).to(device)
    labels = torch.zeros(TRIAL_BOXES, dtype=torch.int64, device=device)
    none = torch.zeros(0, 4, device=device)
    images = torch.rand(size, 3, side, side, generator=generator).to(device)
    return images, [{"boxes": boxes, "labels": labels, "ignore": none} for _ in range(size)]


def smaller_batches(cfg: Config, epoch: int, *, can_change: bool) -> Config:
    """Divide the batch and multiply `accumulate`: each optimiser step still sees the same images.

    Args:
        cfg: The settings that did not fit.
        epoch: The epoch in which memory ran out, from 0.
        can_change: Whether the run may change its batches: a process alone, in its first epoch.

    Raises:
        RflaError: It may not, or the batch is a single image already.
    """
    if cfg.batch == 1 or not can_change:
        advice = (
            "a smaller imgsz= or model"
            if cfg.batch == 1
            else "a smaller batch= with a larger accumulate="
        )
        raise RflaError(f"out of memory with batch={cfg.batch} in epoch {epoch + 1}; use {advice}")
    # The smallest divisor: the largest batch that is smaller and gives the same step.
    divisor = next(number for number in range(2, cfg.batch + 1) if cfg.batch % number == 0)
    return with_settings(
        cfg, {"batch": cfg.batch // divisor, "accumulate": cfg.accumulate * divisor}
    )
