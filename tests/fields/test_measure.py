"""Effective fields of networks whose derivative is known by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from rfla.fields import fit_gaussian, measure_fields, measure_influence


class Blur(nn.Module):
    """The same filter of rows and of columns, `times` times."""

    def __init__(self, rows: list[float], columns: list[float], times: int = 1) -> None:
        super().__init__()
        kernel = torch.outer(torch.tensor(rows), torch.tensor(columns))
        self.kernel, self.times = nn.Parameter(kernel[None, None]), times

    def forward(self, images):
        for _ in range(self.times):
            images = functional.conv2d(images, self.kernel, padding="same")
        return images


def images(count: int = 1, side: int = 32, channels: int = 1) -> list[torch.Tensor]:
    return list(torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)))


def test_one_filter_by_hand():
    """Slopes 1, 2, 1 are influences 1, 4, 1: variance 2 / 6, of the slope's Gaussian twice that."""
    (field,) = measure_fields(Blur([1.0, 2.0, 1.0], [1.0, 0.0, 0.0]), images())
    assert field.sigma == pytest.approx((math.sqrt(2 / 3), 0))
    # the cell is pixel 16: its rows are even about its middle, its columns one to the left
    assert field.offset == pytest.approx((0.5, -0.5)) and field.stride == (1, 1)
    assert field.side == pytest.approx(0, abs=1e-6)


def test_many_filters_are_a_gaussian():
    """A box of 3 has the variance 2 / 3, thirty of them 20: sigma 4.47, side 17.9."""
    (field,) = measure_fields(Blur([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], times=30), images(side=96))
    assert field.sigma == pytest.approx((math.sqrt(20), math.sqrt(20)), rel=0.01)
    assert field.side == pytest.approx(4 * math.sqrt(20), rel=0.01)
    assert field.error < 0.01


def test_two_places_are_no_gaussian():
    """Half of the influence at either end: a Gaussian has 16 % beyond its deviation."""
    (field,) = measure_fields(Blur([1.0, *[0.0] * 15, 1.0], [1.0]), images())
    assert field.error == pytest.approx(0.34, abs=0.06)


def test_levels_strides_and_centres():
    """Patches of 4 px see their own pixels alike: variance (4^2 - 1) / 12 on either axis."""

    class Patches(nn.Module):
        def forward(self, images):
            return {"fine": images, "coarse": [functional.avg_pool2d(images, 4)]}

    fine, coarse = measure_fields(Patches(), images(2))
    assert fine.stride == (1, 1) and fine.sigma == (0, 0)
    assert coarse.stride == (4, 4) and coarse.offset == (2, 2)
    assert coarse.sigma == pytest.approx((math.sqrt(2 * 15 / 12),) * 2)


def test_images_of_several_sizes_count_alike():
    """Influence is a share: an image with ten times the slope says no more than another."""

    class Steep(nn.Module):
        def forward(self, images):
            low, high = images, 100 * functional.avg_pool2d(images, 3, 1, 1)
            return low if images.shape[-1] == 16 else high

    (found,) = measure_influence(Steep(), [*images(side=16), *images(side=32)])
    assert found.shares.shape == (64, 64) and float(found.shares.sum()) == pytest.approx(1)
    assert found.shares[32, 32].item() == pytest.approx((1 + 1 / 9) / 2)
    assert found.shares[31, 33].item() == pytest.approx(1 / 18)


def test_attention_has_an_effective_field():
    class Attention(nn.Module):
        def forward(self, images):
            places = images.flatten(2).transpose(1, 2)
            weights = (8 * places @ places.transpose(1, 2)).softmax(dim=-1)
            return (weights @ places).transpose(1, 2).reshape(images.shape)

    (field,) = measure_fields(Attention(), images(side=16, channels=3))
    assert 1 < field.side < 4 * 16 and math.isfinite(field.error)


def test_nothing_else_changes():
    """Neither weights nor gradients, batch statistics, training mode or random numbers."""
    torch.manual_seed(0)  # with all channels but one dead, signs would make no difference
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    network[0].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = measure_fields(network, images(3))
    with torch.inference_mode():
        again = measure_fields(network, images(3))
    assert first == again != measure_fields(network, images(3), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training and network[1].training and not network[0].training


@pytest.mark.parametrize("factor", [0.0, math.nan])
def test_cells_that_look_at_nothing(factor):
    class Blind(nn.Module):
        def forward(self, images):
            return images * factor

    (found,) = measure_influence(Blind(), images())
    assert not found.shares.any()
    field = fit_gaussian(found)
    assert math.isnan(field.side) and math.isnan(field.error) and math.isnan(field.offset[0])


def test_a_map_that_ignores_the_image():
    """A constant and a learnt map beside one that looks at its own pixel, and no error."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.ones(1, 1, 8, 8))

        def forward(self, images):
            return [torch.ones(1, 1, 8, 8), self.place * 2, images]

    found = [field.side for field in measure_fields(Beside(), images())]
    assert [math.isnan(side) for side in found] == [True, True, False]


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        measure_fields(nn.Identity(), [])
