import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfla.ops.coding import MAX_LOG_RATIO, DeltaCoder, FieldCoder

RCNN_STDS = (0.1, 0.1, 0.2, 0.2)


def test_encode_by_hand():
    """dx = (30 - 20) / 20 = 0.5, dy = (25 - 20) / 10 = 0.5, dw = log(40 / 20), dh = log(5 / 10)."""
    prior = torch.tensor([[10.0, 15.0, 30.0, 25.0]])
    box = torch.tensor([[10.0, 22.5, 50.0, 27.5]])
    expected = torch.tensor([[0.5, 0.5, math.log(2), math.log(0.5)]])
    torch.testing.assert_close(DeltaCoder().encode(prior, box), expected)
    torch.testing.assert_close(
        DeltaCoder(RCNN_STDS).encode(prior, box), expected / torch.tensor(RCNN_STDS)
    )


def test_decode_clips_to_the_image():
    prior = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    deltas = torch.tensor([[0.0, 0.0, math.log(4), math.log(8)]])  # 40 x 80 round (5, 5)
    torch.testing.assert_close(
        DeltaCoder().decode(prior, deltas), torch.tensor([[-15.0, -35.0, 25.0, 45.0]])
    )
    clipped = DeltaCoder().decode(prior, deltas, torch.tensor([30, 20]))
    torch.testing.assert_close(clipped, torch.tensor([[0.0, 0.0, 20.0, 30.0]]))


def test_decode_clips_each_image_of_a_batch():
    priors = torch.tensor([[5.0, 5.0, 15.0, 15.0]]).expand(2, 1, 4)
    sizes = torch.tensor([[10.0, 20.0], [20.0, 10.0]])[:, None]  # (B, 1, 2) height, width
    boxes = DeltaCoder().decode(priors, torch.zeros(2, 1, 4), sizes)
    torch.testing.assert_close(
        boxes[:, 0], torch.tensor([[5.0, 5.0, 15.0, 10.0], [5.0, 5.0, 10.0, 15.0]])
    )


def test_decode_limits_growth_and_stays_finite():
    prior = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    sides = DeltaCoder().decode(prior, torch.tensor([[0.0, 0.0, 1e6, -1e6]]))
    width, height = sides[0, 2] - sides[0, 0], sides[0, 3] - sides[0, 1]
    torch.testing.assert_close(width, torch.tensor(16 * math.exp(MAX_LOG_RATIO)))
    torch.testing.assert_close(height, torch.tensor(0.256), atol=1e-5, rtol=0)


def test_half_precision_is_computed_in_float32():
    prior = torch.tensor([[1000.0, 1000.0, 1004.0, 1004.0]])
    boxes = DeltaCoder().decode(
        prior, torch.tensor([[0.125, 0.125, 0.0, 0.0]], dtype=torch.float16)
    )
    assert boxes.dtype == torch.float32
    torch.testing.assert_close(boxes, prior + 0.5)


def test_a_box_of_no_width_encodes_to_finite_offsets():
    deltas = DeltaCoder().encode(
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[5.0, 5.0, 5.0, 15.0]])
    )
    torch.testing.assert_close(deltas, torch.tensor([[0.0, 0.5, math.log(1e-4), 0.0]]))


def test_no_boxes():
    empty = torch.zeros(0, 4)
    assert DeltaCoder().encode(empty, empty).shape == (0, 4)
    assert DeltaCoder().decode(empty, torch.zeros(0, 32)).shape == (0, 32)


box = st.tuples(st.floats(-50, 900), st.floats(-50, 900), st.floats(1, 64), st.floats(1, 64)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(prior=box, target=box)
def test_decoding_an_encoding_gives_the_box_back(prior, target):
    coder = DeltaCoder(RCNN_STDS)
    priors, boxes = torch.tensor([prior]), torch.tensor([target])
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (priors[:, 2:] - priors[:, :2])
    if (ratio.log().abs() < MAX_LOG_RATIO).all():
        torch.testing.assert_close(
            coder.decode(priors, coder.encode(priors, boxes)), boxes, atol=2e-3, rtol=0
        )


@pytest.mark.parametrize("name", ["rpn", "rcnn", "stage2", "stage3"])
def test_equals_the_official_coder(parity, name):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == f"coder_{name}")
    coder = DeltaCoder(case["stds"])
    priors, boxes, deltas, many = (
        tensors[f"coder.{name}.{part}"] for part in ("priors", "gts", "deltas", "deltas12")
    )
    close = {"rtol": 1e-6, "atol": 1e-5}
    torch.testing.assert_close(
        coder.encode(priors, boxes), tensors[f"coder.{name}.encode"], **close
    )
    torch.testing.assert_close(
        coder.decode(priors, deltas), tensors[f"coder.{name}.decode"], **close
    )
    size = torch.tensor([80, 90])
    torch.testing.assert_close(
        coder.decode(priors, deltas, size), tensors[f"coder.{name}.decode_clip"], **close
    )
    torch.testing.assert_close(
        coder.decode(priors, many, size), tensors[f"coder.{name}.decode12"], **close
    )


def coder_of_one_point():
    """A point at (10, 20) of stride 4 whose effective field is 16 px wide."""
    return FieldCoder(
        torch.tensor([[10.0, 20]]), strides=torch.tensor([[4.0]]), fields=torch.tensor([[16.0]])
    )


def test_field_code_by_hand():
    """The box (20, 18, 24, 26): centre (22, 22), 4 x 8 px; the point lies outside of it."""
    box, code = torch.tensor([[20.0, 18, 24, 26]]), [[3.0, 0.5, math.log(4 / 16), math.log(8 / 16)]]
    coder = coder_of_one_point()
    torch.testing.assert_close(coder.encode(box), torch.tensor(code))
    torch.testing.assert_close(coder.decode(torch.tensor(code)), box)


def test_field_code_of_a_batch_by_hand():
    """(B, P, 4): a box as wide as the field, one stride to the right of its point, and on it.

    Sides that are off by 0.5 and -0.25 in the code are so by 0.375 in the mean.
    """
    coder = coder_of_one_point()
    boxes = torch.tensor([[[6.0, 12, 22, 28]], [[2.0, 12, 18, 28]]])
    code = coder.encode(boxes)
    assert code.tolist() == [[[1, 0, 0, 0]], [[0, 0, 0, 0]]]
    assert coder.decode(code).tolist() == boxes.tolist()
    wrong = code + torch.tensor([9.0, 9, 0.5, -0.25])
    assert coder.side_errors(wrong, boxes).tolist() == [[0.375], [0.375]]


def test_field_code_of_wild_values_stays_finite():
    coder = coder_of_one_point()
    wild = torch.tensor([[0.0, 0, 100, -100]])
    width, height = (coder.decode(wild)[0, 2:] - coder.decode(wild)[0, :2]).tolist()
    assert width == pytest.approx(16 * math.exp(4))
    assert height == pytest.approx(16 * math.exp(-6), rel=1e-3)
    assert coder.encode(torch.tensor([[5.0, 5, 5, 5]])).isfinite().all()


@given(target=box)
def test_field_code_there_and_back(target):
    boxes = torch.tensor([target])
    coder = coder_of_one_point()
    torch.testing.assert_close(coder.decode(coder.encode(boxes)), boxes, atol=2e-3, rtol=0)
