"""Maps read at points: by hand, and as torchvision's RoIAlign reads them."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from rfla.ops.interpolate import interpolate

MAP = torch.tensor([[[[0.0, 10.0, 20.0], [100.0, 110.0, 120.0]]]])
"""One channel of 2 x 3 cells: 10 x + 100 y."""


def read(*points):
    return interpolate(MAP, torch.tensor([0]), torch.tensor([points]))[0, :, 0].tolist()


def test_cells_and_what_lies_between():
    assert read((0.0, 0.0), (2.0, 1.0), (0.5, 0.0), (0.0, 0.25), (1.5, 0.5)) == [
        *(0.0, 120.0, 5.0, 25.0, 65.0)
    ]


def test_beyond_the_edge_a_map_goes_on_for_a_cell():
    assert read((-1.0, 0.0), (2.9, 1.0), (3.0, 2.0)) == [0.0, 120.0, 120.0]
    assert read((3.1, 1.0), (1.0, -1.1), (1e30, 1.0)) == [0.0, 0.0, 0.0]


def test_what_is_no_number_reads_the_first_cell():
    assert read((math.nan, 1.0), (2.0, math.nan)) == [100.0, 20.0]


def test_each_image_reads_its_own_map():
    maps = torch.stack([MAP[0], MAP[0] + 1000])
    points = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert interpolate(maps, torch.tensor([1, 0]), points).flatten().tolist() == [1010.0, 100.0]


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 7), st.sampled_from([4, 8]))
def test_it_reads_and_learns_as_roi_align(seed, height, width, stride):
    """A box of one cell and one sample, anywhere around the map."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, 3, height, width, generator=generator).requires_grad_()
    scale = torch.tensor([width, height]) * stride
    points = (torch.rand(2, 5, 2, generator=generator) * 2 - 0.5) * scale  # px
    image = torch.arange(2.0).repeat_interleave(5)[:, None]
    flat = points.flatten(0, 1)
    rois = torch.cat([image, flat - 1, flat + 1], dim=1)
    theirs = roi_align(features, rois, 1, 1 / stride, 1, aligned=True).view(2, 5, 3)
    ours = interpolate(features, torch.arange(2), points / stride - 0.5)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)

    weight = torch.rand(2, 5, 3, generator=generator)
    (their_slope,) = torch.autograd.grad((theirs * weight).sum(), features)
    (our_slope,) = torch.autograd.grad((ours * weight).sum(), features)
    torch.testing.assert_close(our_slope, their_slope, atol=1e-4, rtol=1e-4)
