"""Picking among the priors of a network, by hand."""

import torch

from rfla.models.priors import take


def test_rows_of_each_image_are_taken():
    """Three rows of two values: the second and the first; of the other image the last twice."""
    values = torch.tensor([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])
    chosen = take(values, torch.tensor([[1, 0], [2, 2]]))
    assert chosen.tolist() == [[[3, 4], [1, 2]], [[11, 12], [11, 12]]]
