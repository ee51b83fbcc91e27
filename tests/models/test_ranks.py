"""Numbers that the losses of several processes share."""

import pytest
import torch

from rfla.models.ranks import divisor_over_ranks, mean_over_ranks, without_ranks


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A run of two processes; what the other one adds is left to the test."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    return monkeypatch


@pytest.mark.parametrize(
    ("here", "elsewhere", "mean", "divisor"),
    [(6.0, 2.0, 4.0, 4.0), (1.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.25, 0.5), (0.0, 0.0, 0.0, 0.5)],
)
def test_two_processes(
    two_processes: pytest.MonkeyPatch, here: float, elsewhere: float, mean: float, divisor: float
) -> None:
    """The mean of two, and of what is divided by: together they have one at least."""
    two_processes.setattr(torch.distributed, "all_reduce", lambda total: total.add_(elsewhere))
    assert float(mean_over_ranks(torch.tensor(here))) == mean
    assert float(divisor_over_ranks(torch.tensor(here))) == divisor


def test_one_process() -> None:
    assert float(divisor_over_ranks(torch.tensor(0.25))) == 1
    assert float(divisor_over_ranks(torch.tensor(7.0))) == 7


def test_the_other_process_is_heard_again_after_the_block(
    two_processes: pytest.MonkeyPatch,
) -> None:
    """Alone a process divides by 1 at least; of two, with nothing to count, by 1 / 2."""
    with without_ranks():
        assert float(divisor_over_ranks(torch.tensor(0.0))) == 1
    two_processes.setattr(torch.distributed, "all_reduce", lambda total: total)
    assert float(divisor_over_ranks(torch.tensor(0.0))) == 0.5
