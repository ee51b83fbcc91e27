"""Which device computes, in which precision, with which random seeds."""

import random

import numpy as np
import torch

from rfla.errors import ConfigError


def select_device(spec: str | int | None) -> torch.device:
    """Return the device that a `device=` value names.

    Args:
        spec: None or "auto" for the first GPU if there is one, else the CPU; "cpu"; "mps"; "0" or "cuda:0".

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    name = "" if spec is None else str(spec).strip().lower()
    if name in ("", "auto"):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise ConfigError("device=mps: this machine has no Apple GPU; use device=cpu")
    number = name.removeprefix("cuda").removeprefix(":") or "0"
    if not number.isdigit():
        raise ConfigError(f"device={spec}: unknown device; use cpu, mps, a GPU number such as 0, or a list such as 0,1")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) >= count:
        found = f"{count} CUDA GPU(s) found, numbered from 0" if count else "no CUDA GPU found; use device=cpu"
        raise ConfigError(f"device={spec}: {found}")
    return torch.device(f"cuda:{number}")


def device_label(device: torch.device) -> str:
    """Return a name for people: `CPU, 2 threads` or `cuda:0, NVIDIA H100`."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def autocast_dtype(device: torch.device, amp: bool | str) -> torch.dtype | None:
    """Return the half precision to compute in, or None for float32.

    `amp=true` is for GPUs: bfloat16 where the GPU has it, else float16. On a CPU it stays float32, where results repeat
    to the bit between machines; `amp=bf16` uses bfloat16 there too if the processor has instructions for it.
    """
    if amp is False:
        return None
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if amp == "bf16" or (amp is True and native) else torch.float16
    return torch.bfloat16 if amp == "bf16" and device.type == "cpu" and cpu_has_bfloat16() else None


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX-512 BF16 or AMX); emulated, it would be slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every torch that we support
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, numpy and torch; with `deterministic` also forbid the GPU's nondeterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    elif torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
