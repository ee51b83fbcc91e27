"""The kernels of group norm beside torch's in float64, by triton's interpreter, which needs no GPU.

`test_group_norm.py` runs this in a process of its own with TRITON_INTERPRET=1: triton reads it when
it is imported.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rfla.ops import group_norm_kernels
from rfla.ops.group_norm import compiled_kernels
from rfla.ops.group_norm_kernels import GroupNormReLU

# so that a small map has several tiles and chunks too
group_norm_kernels.TILE, group_norm_kernels.STEPS = 64, 2


def outputs(kernels: bool, x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Output, and gradients of the map, the weight and the bias for a gradient that varies."""
    dtype = torch.float32 if kernels else torch.float64
    leaves = [each.detach().to(dtype, copy=True).requires_grad_() for each in (x, weight, bias)]
    if kernels:
        y = GroupNormReLU.apply(leaves[0], groups, leaves[1], leaves[2], 1e-5)
    else:
        y = functional.group_norm(leaves[0], groups, leaves[1], leaves[2], 1e-5).relu()
    # nothing where y is hardly above zero, since rounding decides whether it is
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=dtype).sin().view(y.shape) * y.detach())
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 3, 4, 8]),
    per=st.integers(1, 6),
    height=st.integers(1, 6),
    width=st.integers(2, 7),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def compare(
    batch: int, groups: int, per: int, height: int, width: int, channels_last: bool, seed: int
) -> None:
    """Of a group whose numbers are nearly equal no float32 tells the gradient: a slope in each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, groups * per, height, width, generator=generator)
    x += torch.linspace(0, 2, per * height * width).view(per, height, width).repeat(groups, 1, 1)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, groups * per, generator=generator)
    found = outputs(True, x, groups, weight, bias)
    for ours, exact in zip(found, outputs(False, x, groups, weight, bias), strict=True):
        assert ours.shape == exact.shape
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def a_nan_stays_one() -> None:
    """What diverges must not look like zero."""
    x = torch.ones(1, 4, 2, 2)
    x[0, 0, 0, 0] = float("nan")
    y = GroupNormReLU.apply(x, 2, torch.ones(4), torch.zeros(4), 1e-5)
    assert y[:, :2].isnan().all() and not y[:, 2:].isnan().any()


def a_prediction_finds_that_they_run() -> None:
    """Also if it is the first to ask."""
    with torch.inference_mode():
        assert compiled_kernels(torch.device("cpu")) is group_norm_kernels


if __name__ == "__main__":
    compare()
    a_nan_stays_one()
    a_prediction_finds_that_they_run()
