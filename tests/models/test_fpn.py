"""The five pyramids of the authors' detectors, against the records; the way up again by hand."""

import pytest
import torch

from rfla.models.mmdet import our_key
from rfla.models.necks.fpn import FPN

VARIANTS = {
    "fpn_fcos_p3": {"start_level": 3, "extra": "on_output", "relu_before_extra": True},
    "fpn_fcos_p2": {"start_level": 2, "extra": "on_output", "relu_before_extra": True},
    "fpn_retina": {"start_level": 3, "extra": "on_input"},
    "fpn_autoassign": {"start_level": 3, "extra": "on_input", "relu_before_extra": True},
    "fpn_faster": {},
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_recorded_pyramid(parity, name):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == name)
    inputs = [tensors[f"fpn.in{stage}"] for stage in range(4)]
    state = {
        our_key(f"neck.{key}").removeprefix("neck."): tensors[value]
        for key, value in case["state"].items()
    }
    width = next(iter(state.values())).shape[0]
    neck = FPN([level.shape[1] for level in inputs], [4, 8, 16, 32], width, **VARIANTS[name])
    neck.load_state_dict(state)
    for ours, expected in zip(neck(inputs), case["outs"], strict=True):
        torch.testing.assert_close(ours, tensors[expected], rtol=1e-4, atol=1e-5)


def test_the_way_up_again_by_hand():
    """Two levels of ones, each step a factor: 2 on the way up, 3 to smooth, 1 at the finest."""
    neck = FPN([1, 1], [4, 8], width=1, levels=3, bottom_up=True)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.zero_()
        for convs, factor in (
            (neck.lateral_convs, 1.0),
            (neck.fpn_convs, 1.0),
            (neck.downsample_convs, 2.0),
            (neck.pafpn_convs, 3.0),
        ):
            for conv in convs:
                middle = conv.kernel_size[0] // 2
                conv.weight[0, 0, middle, middle] = factor
    fine, coarse, pooled = neck([torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)])
    assert fine.tolist() == torch.full((1, 1, 3, 3), 2.0).tolist()  # 1 + 1 from above
    # 3 (1 + 2 times the finer level); P4 is pooled from it
    assert coarse.tolist() == torch.full((1, 1, 2, 2), 15.0).tolist()
    assert pooled.tolist() == [[[[15.0]]]]


def test_a_pyramid_of_one_level_has_no_way_up():
    neck = FPN([1, 1], [4, 8], width=1, levels=1, bottom_up=True)
    assert len(neck.pafpn_convs) == 0
    assert len(neck([torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2)])) == 1


@pytest.mark.parametrize("bottom_up", [False, True])
def test_a_map_of_one_cell_has_the_gradient_of_float32(bottom_up):
    """On a CPU oneDNN's in bfloat16 is whatever memory held, here NaN, in 8 of 10 tries."""
    torch.manual_seed(0)
    stages = [torch.randn(2, 16, 1, 1), torch.randn(2, 16, 1, 1)]
    neck = FPN([16, 16], [4, 8], width=16, levels=4, extra="on_output", bottom_up=bottom_up)
    convs = [*neck.downsample_convs, *neck.fpn_convs]
    for _ in range(20):
        junk = [torch.full((count,), torch.nan) for count in (1152, 2304, 4608) * 20]
        del junk
        neck.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            levels = neck(stages)
        sum(level.float().sum() for level in levels).backward()
        assert all(conv.weight.grad.isfinite().all() for conv in convs)
