"""Group norm of the heads: how many groups, and what it computes in half precision."""

import pytest
import torch

from rfla.models.blocks import GroupNorm


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (48, 16), (32, 16), (24, 8), (8, 4)])
def test_groups_have_more_than_one_channel(channels: int, groups: int) -> None:
    assert GroupNorm(channels).num_groups == groups


def test_half_precision_is_float32_rounded() -> None:
    """Output and gradient are those of float32, rounded once."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 5, 6, generator=generator).bfloat16()
    features = features.contiguous(memory_format=torch.channels_last)
    slope = torch.randn(2, 8, 5, 6, generator=generator).bfloat16()
    norm = GroupNorm(8)
    given = [features.clone().requires_grad_(), features.float().requires_grad_()]
    outputs = []
    for each in given:
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(norm(each))
        outputs[-1].backward(slope.to(each.dtype))
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(outputs[0], outputs[1].bfloat16())
    assert given[0].grad is not None and given[1].grad is not None
    assert torch.equal(given[0].grad, given[1].grad.bfloat16())
