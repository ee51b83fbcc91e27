"""Sums of an epoch, and the statistics of norm layers after a bad batch."""

import torch
from torch import nn

from rfla.engine.meter import RunningStatistics


def test_running_statistics_by_hand() -> None:
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.BatchNorm1d(1).eval())
    statistics = RunningStatistics(net)
    assert len(statistics.tensors) == 2  # mean and variance of the one that learns
    statistics.keep()
    mean = statistics.tensors[0]
    mean.fill_(5.0)
    statistics.take_back_unless(torch.tensor(True))
    assert float(mean) == 5.0
    statistics.take_back_unless(torch.tensor(False))
    assert float(mean) == 0.0
