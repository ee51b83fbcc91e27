"""The helpers of the parity tests leave a network as they found it, also where a test fails."""

import pytest
import torch
from torch import nn


def test_a_failing_float64_repeat_leaves_the_network_in_float32(float64):
    net = nn.BatchNorm1d(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def step():
        net(torch.randn(4, 2, dtype=torch.float64))  # moves the running mean
        raise AssertionError("the record differs")

    with pytest.raises(AssertionError, match="the record"):
        float64(net, step)
    after = net.state_dict()
    assert after["weight"].dtype == torch.float32
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_failing_test_gives_the_assigner_back(shrunken_fields):
    net = nn.Module()
    net.points = nn.Module()
    net.points.assigner = assigner = type("Assigner", (), {"decay": 0.9})()
    with pytest.raises(AssertionError), shrunken_fields(net):
        assert net.points.assigner is assigner
    assert net.points.assigner is assigner
