"""The average of the weights, by hand."""

import math

import pytest
import torch
from torch import nn

from rfla.engine.ema import EMA
from rfla.engine.model_source import compile_parts


def test_average_follows_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight of the new is 1 - decay (1 - exp(-u / ramp)): first 1 - 0.9 * 0.6321 = 0.4311."""
    monkeypatch.setattr("rfla.engine.ema.RAMP", 1.0)
    net = nn.BatchNorm1d(1)
    ema = EMA(net, decay=0.9)
    nn.init.constant_(net.weight, 2.0)
    net.num_batches_tracked.fill_(5)
    ema.update()
    assert float(ema.net.weight) == pytest.approx(1.4311, abs=1e-4)
    assert int(ema.net.num_batches_tracked) == 5  # type: ignore[arg-type]
    assert not ema.net.weight.requires_grad


def test_the_average_warms_up_over_500_updates() -> None:
    """From 0 towards 1; the first update keeps 0.9 (1 - exp(-1 / 500))."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = EMA(net, decay=0.9)
    nn.init.ones_(net.weight)
    ema.update()
    assert float(ema.net.weight) == pytest.approx(1 - 0.9 * (1 - math.exp(-1 / 500)))


def test_an_average_of_a_compiled_network_runs_its_own_weights() -> None:
    """A compiled call belongs to the network that it was compiled for.

    A copy must not take it along.
    """
    net = nn.Module()
    net.backbone = nn.Linear(1, 1, bias=False)
    compile_parts(net)
    average = EMA(net, 0.9)
    nn.init.constant_(net.backbone.weight, 3.0)
    nn.init.constant_(average.net.backbone.weight, 2.0)  # type: ignore[union-attr, arg-type]
    assert float(average.net.backbone(torch.ones(1, 1))) == 2.0  # type: ignore[operator]
