"""Orders of images: every one once, batches of one size in an evaluation."""

import numpy as np
import pytest

from rfla.data import EvalSampler, TrainSampler


def test_fewer_images_than_a_batch():
    sampler = TrainSampler(3, 8, seed=0)
    (keys,) = list(sampler)
    assert len(keys) == 8 and {row for _, row in keys} == {0, 1, 2} and len(sampler) == 1
    with pytest.raises(ValueError, match="multiple of the 3 ranks"):
        TrainSampler(10, 8, world=3)


def test_ranks_share_each_batch():
    """Two batches of 4 keys: the first rank has the first 2 of each."""
    whole = list(TrainSampler(8, 4, seed=0))
    first, second = (list(TrainSampler(8, 4, seed=0, rank=rank, world=2)) for rank in (0, 1))
    assert [len(keys) for keys in first] == [2, 2]
    assert [one + two for one, two in zip(first, second, strict=True)] == whole


@pytest.mark.parametrize(("length", "world"), [(10, 1), (10, 2), (3, 2), (0, 1), (9, 4)])
def test_evaluation_takes_every_row_once(length: int, world: int):
    seen = [
        row
        for rank in range(world)
        for keys in EvalSampler(np.full((length, 2), 64), 2, rank, world)
        for _, row in keys
    ]
    assert sorted(seen) == list(range(length))
    for rank in range(world):
        sampler = EvalSampler(np.full((length, 2), 64), 2, rank, world)
        assert len(sampler) == len(list(sampler))


def test_evaluation_batches_hold_images_of_one_padded_size():
    """The largest first, those of one size in their order."""
    sizes = np.array([[64, 96], [96, 96], [64, 96], [96, 64], [64, 96]])
    rows = [[row for _, row in keys] for keys in EvalSampler(sizes, 2)]
    assert rows == [[1], [3], [0, 2], [4]]
    assert [[row for _, row in keys] for keys in EvalSampler(sizes, 2, 1, 2)] == [[3], [4]]
