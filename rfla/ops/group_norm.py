"""Group norm followed by ReLU.

Shapes: (B, C, H, W) maps, G groups of C / G channels.
"""

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

HALF = (torch.bfloat16, torch.float16)


def group_norm_relu(
    features: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Normalise each group of channels over an image, scale, shift and cut at zero (1803.08494).

    Sums and factors are float32. A map of bfloat16 or float16 in `channels_last` stays what it is:
    torch's kernel for GPUs takes maps in (B, C, H, W) order alone, and under autocast float32, so
    that each map would be copied six times, half the time of a training step of RFD at 800 px.
    So on a GPU the kernels of `group_norm_kernels.py` run, where triton can compile them. On a CPU
    torch's gradient of such a map is slow (torch 2.14): the map is float32 in between.

    Args:
        features: (B, C, H, W).
        groups: G, a divisor of C.
        weight: (C,) scales.
        bias: (C,) shifts.
        eps: Added to the variance.

    Returns:
        (B, C, H, W) of the type of `features`; of float32 under autocast on a GPU without triton.
    """
    half = features.dtype in HALF
    if half and not features.is_cuda:
        whole = functional.group_norm(features.float(), groups, weight.float(), bias.float(), eps)
        return whole.to(features.dtype).relu_()
    if half and not _is_traced() and (kernels := compiled_kernels(features.device)):
        out: Tensor = kernels.GroupNormReLU.apply(features, groups, weight, bias, eps)
        return out
    return functional.group_norm(features, groups, weight, bias, eps).relu_()


def _is_traced() -> bool:
    """Whether a compiler or an export looks on: neither can look into kernels."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call,attr-defined]
    return tracing or torch.compiler.is_compiling()


@cache
def compiled_kernels(device: torch.device) -> ModuleType | None:
    """Return the kernels if they run on a GPU; None, and once a warning, if not.

    There is no triton outside of Linux and Windows, and it needs a C compiler: only trying tells.
    """
    try:
        from rfla.ops import group_norm_kernels
    except ImportError:
        return None
    try:
        with torch.inference_mode(False), torch.enable_grad():
            features = torch.ones(1, 8, 2, 2, dtype=HALF[0], device=device, requires_grad=True)
            weight = torch.ones(8, device=device, requires_grad=True)
            group_norm_kernels.GroupNormReLU.apply(
                features, 4, weight, weight, 1e-5
            ).sum().backward()
    except Exception as error:  # whatever its compiler meets
        warnings.warn(
            f"triton could not compile group norm, which takes longer without: {error}",
            stacklevel=2,
        )
        return None
    return group_norm_kernels
