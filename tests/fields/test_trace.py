"""Theoretical fields: by hand, by the authors, and by brute force on random networks.

By hand: 1 + sum of (kernel - 1) * dilation * product of the strides before.
"""

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rfla.assign import resnet_receptive_fields
from rfla.fields import TraceError, trace, trace_fields
from rfla.models import build_detector


def only(network: nn.Module):
    (field,) = trace_fields(network)
    return field


def test_three_layers_by_hand():
    # 1 + 6 = 7; then cells are 2 px apart: 7 + 2 * 2 = 11; then 4 px apart, dilation 2: 11 + 2 * 2
    # * 4 = 27. Padding of half the kernel keeps every centre on the pixel of index stride * i.
    network = nn.Sequential(
        nn.Conv2d(3, 2, 7, stride=2, padding=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(2, 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, 3, dilation=2, padding=2),
    ).train()
    field = only(network)
    assert field.sides == (27, 27) and field.side == 27 and field.unbounded == ""
    assert field.stride == (4, 4) and field.offset == (0.5, 0.5)
    assert network.training and network[3].training


def test_patches_have_their_centre_in_the_middle():
    # 4 px without padding: the cell sees its own 4 px
    field = only(nn.Conv2d(3, 2, 4, stride=4))
    assert field.sides == (4, 4) and field.offset == (2, 2)


def test_rows_and_columns_apart():
    field = only(nn.Conv2d(3, 2, (5, 1), stride=(1, 3)))
    assert field.sides == (5, 1) and field.stride == (1, 3)
    assert field.offset == (2.5, 0.5) and field.side == pytest.approx(math.sqrt(5))


@pytest.mark.parametrize("depth", [18, 50])
def test_resnets_by_the_authors_counting(depth):
    net = build_detector("faster_rcnn", 1, settings={"backbone": f"resnet{depth}"})
    fields = trace_fields(net.backbone)
    assert [field.side for field in fields] == resnet_receptive_fields(depth, [2, 3, 4, 5])
    assert [field.stride for field in fields] == [(4, 4), (8, 8), (16, 16), (32, 32)]


def test_caffe_style_strides_in_the_1x1_layer():
    # the 3 x 3 of the first block of C3 then sees cells 8 px apart instead of 4: 8 px more at C3,
    # 24 at C4, 56 at C5
    net = build_detector("fcos", 1)
    assert [field.side for field in trace_fields(net.backbone)] == [35, 99, 291, 483]


class Pyramid(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net.pyramid(images)


class Raw(Pyramid):
    def forward(self, images):
        return self.net.raw(images)["cls"]


def test_the_pyramid_by_hand():
    """Every level sees C5, of 427 px, through the sums."""
    net = build_detector("faster_rcnn", 1)
    # P5: a 3 x 3 layer on cells of 32 px, 427 + 2 * 32. P2 to P4: 3 cells of theirs lie in at most
    # 2 cells of C5, 427 + 32. P6 picks cells of P5.
    assert [field.side for field in trace_fields(Pyramid(net))] == [459, 459, 459, 491, 491]


def test_the_head_by_hand():
    """Four 3 x 3 layers and a predicting one on the output layer: 6 cells on each side."""
    net = build_detector("retinanet", 1, settings={"head.depth": 4})
    # P3: 2 * 6 + 1 cells lie in at most 4 cells of C5, 427 + 3 * 32; P4: 13 cells of 16 px in at
    # most 7 of C5, 427 + 6 * 32; P5: 427 + 12 * 32; P6, stride 2 on C5: 11 cells are 23 of
    # C5, 427 + 22 * 32; P7: 11 cells are 23 of P6, 47 of C5, 427 + 46 * 32
    assert [field.side for field in trace_fields(Raw(net))] == [523, 619, 811, 1131, 1899]


class Shuffled(nn.Module):
    """Channels halved, shuffled, laid out last, concatenated: no place sees another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)

    def forward(self, images):
        images = torch.cat((images, images[:, :1] * 2), dim=1)
        batch, _, height, width = images.shape
        images = images.view(batch, 2, 2, height, width).transpose(1, 2).reshape_as(images)
        left, right = images.chunk(2, dim=1)
        images = torch.cat((right, left), dim=1).flatten(2).transpose(1, 2)
        images = functional.gelu(self.norm(self.linear(images)))
        weights = (
            images.softmax(dim=-1).amax(dim=-1, keepdim=True) + images[..., :1].sum(2)[..., None]
        )
        return (images * weights).transpose(1, 2).unflatten(2, (height, width))


def test_work_on_channels_alone_widens_nothing():
    field = only(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Shuffled()))
    assert field.sides == (3, 3) and field.offset == (0.5, 0.5)


class Squeeze(nn.Module):
    def forward(self, images):
        return images * images.mean(dim=(2, 3), keepdim=True).sigmoid()


class Cumulated(nn.Module):
    def forward(self, images):
        return images.cumsum(dim=2)


class Attention(nn.Module):
    def forward(self, images):
        places = images.flatten(2).transpose(1, 2)
        weights = (places @ places.transpose(1, 2)).softmax(dim=-1)
        return (weights @ places).transpose(1, 2).reshape(images.shape)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (Squeeze(), "global pooling"),
        (nn.AdaptiveAvgPool2d(7), "adaptive pooling"),
        (nn.GroupNorm(1, 3), "group norm"),
        (Attention(), "attention"),
        (Cumulated(), "cumsum"),
        (nn.PixelUnshuffle(2), "pixel_unshuffle"),
    ],
)
def test_the_whole_map_is_unbounded_and_named(layer, word):
    field = only(nn.Sequential(nn.Conv2d(3, 3, 3, stride=4), layer))
    assert field.unbounded == word
    assert field.side == math.inf and all(map(math.isnan, field.offset))


def test_a_map_written_in_parts_is_not_followed():
    class Shifted(nn.Module):
        def forward(self, images):
            moved = torch.zeros_like(images)
            moved[:, :, 1:] = images[:, :, :-1]
            return moved

    assert only(Shifted()).unbounded == "a map that is written in parts"


def test_levels_before_the_global_pooling_are_bounded():
    class Two(nn.Module):
        def forward(self, images):
            near = functional.max_pool2d(images, 3, stride=2, padding=1)
            return {"near": near, "far": Squeeze()(near), "score": near.mean()}

    near, far = trace_fields(Two())
    assert near.sides == (3, 3) and far.unbounded == "global pooling"


@pytest.mark.slow
def test_torchvision_networks():
    features = torchvision.models.get_model("convnext_tiny", weights=None).features
    # 4 px patches; three blocks of 7 x 7 on cells of 4 px, a 2 x 2 of stride 2, three on 8, nine
    # on 16, three on 32, a 2 x 2 before each
    side = 4 + 3 * 6 * 4 + 4 + 3 * 6 * 8 + 8 + 9 * 6 * 16 + 16 + 3 * 6 * 32
    assert only(features).side == side
    features = torchvision.models.get_model("swin_t", weights=None).features
    images_last = nn.Sequential(features, torchvision.ops.Permute([0, 3, 1, 2]))
    assert only(images_last).unbounded == "a map cut into windows"
    features = torchvision.models.get_model("mobilenet_v3_small", weights=None).features
    assert only(features).unbounded == "global pooling"


def test_a_network_that_asks_for_values():
    class Asks(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(TraceError, match="DataDependent"):
        trace_fields(Asks())


def test_an_output_that_ignores_the_image():
    class Ignores(nn.Module):
        def forward(self, images):
            return torch.ones(1, 2, 8, 8)

    assert only(Ignores()).unbounded == "an output that ignores the image"


# --- brute force: another value of a pixel changes every output that depends on it

KERNELS, STRIDES, SIDE = st.integers(1, 4), st.integers(1, 2), 192


class Residual(nn.Module):
    def __init__(self, kernel: int, dilation: int) -> None:
        super().__init__()
        pad = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(2, 2, (kernel, 1), padding=(pad, 0), dilation=(dilation, 1))

    def forward(self, images):
        return functional.relu(images + self.conv(images))


class Top(nn.Module):
    """A coarser map, resized and added, as in a pyramid."""

    def __init__(self, kernel: int, mode: str) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 2, (kernel, 1), stride=(2, 1), padding=(kernel // 2, 0))
        self.mode = mode

    def forward(self, images):
        coarse = self.down(images)
        return images + functional.interpolate(coarse, size=images.shape[-2:], mode=self.mode)


class Cropped(nn.Module):
    def forward(self, images):
        return functional.pad(images, (0, 0, 1, 2))[:, :, 3::2]


@st.composite
def layers(draw) -> nn.Module:
    kernel, stride, dilation = draw(KERNELS), draw(STRIDES), draw(st.integers(1, 2))
    pad = draw(st.integers(0, kernel // 2))
    kind = draw(
        st.sampled_from(["conv", "max", "avg", "residual", "top", "up", "transposed", "crop"])
    )
    if kind == "conv":
        return nn.Conv2d(2, 2, (kernel, 1), (stride, 1), (pad, 0), (dilation, 1))
    if kind == "max":
        return nn.MaxPool2d((kernel, 1), (stride, 1), (pad, 0), (dilation, 1))
    if kind == "avg":
        return nn.AvgPool2d((kernel, 1), (stride, 1), (pad, 0))
    if kind == "residual":
        return Residual(draw(st.sampled_from([1, 3])), dilation)
    if kind == "top":
        return Top(kernel, draw(st.sampled_from(["nearest", "bilinear", "bicubic"])))
    if kind == "transposed":
        return nn.ConvTranspose2d(2, 2, (kernel, 1), (stride, 1), (0, 0), dilation=(dilation, 1))
    if kind == "crop":
        return Cropped()
    return nn.Upsample(scale_factor=(2.0, 1.0), mode=draw(st.sampled_from(["nearest", "bilinear"])))


def brute_force(network: nn.Module) -> torch.Tensor:
    """(2, N): the first and the last row that each row of the output sees; 1 and 0 for none.

    Weights are positive, so that what a pixel does to a cell cannot cancel out; and it is made
    brighter and darker, of which a largest value or a ReLU may hide one.
    """
    images = torch.ones(2 * SIDE + 1, 2, SIDE, 1, dtype=torch.float64)
    images[torch.arange(SIDE), :, torch.arange(SIDE)] = 1000.0
    images[torch.arange(SIDE) + SIDE, :, torch.arange(SIDE)] = -1000.0
    with torch.no_grad():
        for weight in network.double().parameters():
            weight.abs_().add_(0.1)
        *changed, base = network(images)
    change = ((torch.stack(changed) - base).abs() > 1e-9 * base.abs()).any(dim=1)[:, :, 0]
    reached = change[:SIDE] | change[SIDE:]  # (pixel, cell)
    pixels = torch.arange(SIDE)[:, None]
    first = torch.where(reached, pixels, SIDE).amin(dim=0)
    last = torch.where(reached, pixels, -1).amax(dim=0)
    return torch.where(reached.any(dim=0), torch.stack([first, last]), torch.tensor([[1], [0]]))


@settings(max_examples=60, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=4))
def test_fields_are_those_of_brute_force(stack):
    """Cell by cell, on an image of one size, the borders with it."""
    network = nn.Sequential(*stack).eval()
    ((_, seen),) = trace._run(Doubled(network), SIDE)
    first, last = seen.rows.first, seen.rows.last
    traced = np.where(first <= last, np.stack([first, last]), [[1], [0]])
    assert torch.equal(torch.from_numpy(traced), brute_force(network))


def test_cells_that_see_nothing():
    """The stride of a transposed convolution puts zeros between; the next one takes these alone."""
    network = nn.Sequential(
        nn.ConvTranspose2d(3, 2, 1, stride=2), nn.Conv2d(2, 2, 1, stride=2, padding=1)
    )
    field = only(network)
    assert field.sides == (0, 0) and field.unbounded == ""


class Doubled(nn.Module):
    """Takes two channels of three."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images[:, :2])
