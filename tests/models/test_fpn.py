"""The five pyramids of the authors' detectors, against the records."""

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
