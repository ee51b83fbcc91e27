"""Sums of an epoch, and the statistics of norm layers after a bad batch."""

import torch
from torch import nn

from rfla.engine.meter import Meter, RunningStatistics


def test_means_by_hand() -> None:
    """Two batches and two steps; a loss that is not finite adds nothing.

    `a` is 1 and 0, `b` 0.5 twice, their sum 1.5 and 0, and 6 + 2 positives belong to 4 boxes.
    """
    meter = Meter()
    for loss, positives in ((1.0, 6), (torch.inf, 2)):
        losses = {"a": torch.tensor(loss), "b": torch.tensor(0.5)}
        counts = {"positives": torch.tensor(positives), "boxes": torch.tensor(2)}
        meter.add_batch(torch.tensor([0]), losses, counts)
    meter.add_step(torch.tensor(3.0))
    meter.add_step(torch.tensor(5.0))
    assert meter.means() == {
        "a": 0.5,
        "b": 0.5,
        "loss": 0.75,
        "grad_norm": 4.0,
        "positives_per_box": 2.0,
    }
    assert [list(record.parts) for record in meter.recent] == [["a", "b"], ["a", "b", "gradient"]]


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
