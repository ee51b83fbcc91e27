"""Which device computes, in which precision, with which random seeds."""

import logging
import os
import random
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from rfla.engine.distributed import environment_number
from rfla.errors import ConfigError
from rfla.ops.device import plain_defaults

log = logging.getLogger("rfla")

PROBE_SIDE = 128  # px of the noise image that shows whether half precision holds


def select_device(spec: str | int | None) -> torch.device:
    """Return the device that a `device=` value names for this process.

    Args:
        spec: None or "auto" for the first GPU if there is one, else the CPU; "cpu"; "mps"; "0" or
            "cuda:0". A process of `torchrun` takes the GPU of its number on this machine, or that
            place in a list such as "0,1".

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    name = "" if spec is None else str(spec).strip().lower()
    local_rank = environment_number("LOCAL_RANK", 0)
    if name in ("", "auto"):
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    listed = name.split(",")
    if len(listed) > 1:
        if local_rank >= len(listed):
            raise ConfigError(
                f"device={spec}: process {local_rank} of this machine has no GPU in the list"
            )
        name = listed[local_rank]
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise ConfigError("device=mps: this machine has no Apple GPU; use device=cpu")
    return _cuda(name.removeprefix("cuda").removeprefix(":") or str(local_rank), spec)


def _cuda(number: str, spec: str | int | None) -> torch.device:
    """Return the GPU of a number; `spec` is what was typed."""
    if not number.isdigit():
        raise ConfigError(
            f"device={spec}: unknown device; use cpu, mps, a GPU number such as 0, "
            "or a list such as 0,1"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) < count:
        return torch.device(f"cuda:{number}")
    if count:
        raise ConfigError(f"device={spec}: {count} CUDA GPU(s) found, numbered from 0")
    raise ConfigError(f"device={spec}: no CUDA GPU found; use device=cpu")


def device_label(device: torch.device) -> str:
    """Return a name for people: `CPU, 2 threads` or `cuda:0, NVIDIA H100`."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return (
        f"CPU, {threads} thread{'s' if threads > 1 else ''}"
        if device.type == "cpu"
        else str(device)
    )


def autocast_dtype(device: torch.device, amp: bool | str) -> torch.dtype | None:
    """Return the half precision to compute in, or None for float32.

    `amp=true` is for GPUs: bfloat16 where the GPU has it, else float16. On a CPU it stays float32,
    where results repeat to the bit between machines; `amp=bf16` uses bfloat16 there too if the
    processor has instructions for it, and says so if it has none.
    """
    if amp is False:
        return None
    if device.type == "cuda":
        with torch.cuda.device(device):  # else the first GPU is asked
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if amp == "bf16" or (amp is True and native) else torch.float16
    if amp != "bf16" or device.type != "cpu":
        return None
    if cpu_has_bfloat16():
        return torch.bfloat16
    _say_that_it_computes_in_float32()
    return None


@cache  # once a process
def _say_that_it_computes_in_float32() -> None:
    log.warning("amp=bf16: this processor has no bfloat16 instructions; it computes in float32")


def on_device(net: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Move a network to where it computes, in the layout that is fastest there."""
    if dtype is None:
        return net.to(device)
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the block in which a network runs: in half precision, or with None in float32."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX-512 BF16 or AMX).

    Emulated, it would be slower.
    """
    probes = (
        "_is_avx512_bf16_supported",
        "_is_amx_tile_supported",
    )  # not in every torch that we support
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@torch.no_grad()
@plain_defaults()
def precision_holds(net: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a network's raw outputs in half precision are those in float32, but for rounding.

    The norm of the difference may be a tenth of the norm of the outputs; a broken driver or kernel
    is far beyond that.

    Args:
        net: Has `raw(images)`; left in the mode it was in.
        device: Where to compute.
        dtype: The half precision.
    """
    # A generator of its own: the check must not move the random numbers of the run.
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, PROBE_SIDE, PROBE_SIDE, generator=generator).to(device)
    was_training = net.training
    net.eval()
    reference = raw_outputs(net, images)
    with torch.autocast(device.type, dtype):
        half = raw_outputs(net, images)
    net.train(was_training)
    return bool(torch.isfinite(half).all() and (half - reference).norm() <= 0.1 * reference.norm())


def raw_outputs(net: Any, images: torch.Tensor) -> torch.Tensor:
    """Return all raw outputs as one float32 vector."""
    return torch.cat(
        [level.float().flatten() for levels in net.raw(images).values() for level in levels]
    )


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, numpy and torch.

    With `deterministic` also forbid the GPU's nondeterministic kernels.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # before the first product of matrices
        torch.use_deterministic_algorithms(True, warn_only=True)


def use_fast_float32(allowed: bool) -> None:
    """Let a GPU round the inputs of float32 products to TF32; `amp=false` computes them in full."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
