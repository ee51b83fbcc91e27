"""Samplers: exact counts, repeatable draws."""

import pytest
import torch

from rfla.assign import PseudoSampler, RandomSampler

MATCHED = torch.tensor([0, 1, -1, -2, 2, -1, -1, 3, -1, -2])  # 4 positive, 4 background, 2 ignored


def test_pseudo():
    sample = PseudoSampler()(MATCHED)
    assert sample.positive.tolist() == [0, 1, 4, 7]
    assert sample.negative.tolist() == [2, 5, 6, 8]


@pytest.mark.parametrize(
    ("num", "fraction", "positive", "negative"),
    [
        (4, 0.5, 2, 2),
        (6, 0.9, 4, 2),  # fewer positives than allowed: background fills the rest
        (20, 0.5, 4, 4),  # fewer priors than wanted
        (5, 0.5, 2, 3),  # int(2.5) = 2
    ],
)
def test_counts(num, fraction, positive, negative):
    sample = RandomSampler(num, fraction)(MATCHED, 0)
    assert (len(sample.positive), len(sample.negative)) == (positive, negative)
    assert (MATCHED[sample.positive] >= 0).all()
    assert (MATCHED[sample.negative] == -1).all()


def test_seeds():
    matched = torch.where(torch.arange(1000) % 3 == 0, 0, -1)
    sampler = RandomSampler(64, 0.25)
    first, again, other = (
        sampler(matched, 5),
        sampler(matched, torch.Generator().manual_seed(5)),
        sampler(matched, 6),
    )
    assert torch.equal(first.positive, again.positive)
    assert torch.equal(first.negative, again.negative)
    assert not torch.equal(first.positive, other.positive)


def test_draws_are_uniform():
    matched = torch.zeros(10, dtype=torch.int64)
    sampler, generator = RandomSampler(5, 1.0), torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(2000):
        counts[sampler(matched, generator).positive] += 1
    assert ((counts / 2000 - 0.5).abs() < 0.05).all()  # 4.5 standard deviations
