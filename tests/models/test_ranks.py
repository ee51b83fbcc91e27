"""Numbers that the losses of several processes share."""

import pytest
import torch

from rfla.models.ranks import divisor_over_ranks, mean_over_ranks


@pytest.mark.parametrize(
    ("here", "elsewhere", "mean", "divisor"),
    [(6.0, 2.0, 4.0, 4.0), (1.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.25, 0.5), (0.0, 0.0, 0.0, 0.5)],
)
def test_two_processes(
    monkeypatch: pytest.MonkeyPatch, here: float, elsewhere: float, mean: float, divisor: float
) -> None:
    """The mean of two, and of what is divided by: together they have one at least."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(elsewhere))
    assert float(mean_over_ranks(torch.tensor(here))) == mean
    assert float(divisor_over_ranks(torch.tensor(here))) == divisor


def test_one_process() -> None:
    assert float(divisor_over_ranks(torch.tensor(0.25))) == 1
    assert float(divisor_over_ranks(torch.tensor(7.0))) == 7
