"""Distances: by hand, against the records (to the bit), and their claims about range and reach."""

import copy
import math
import pickle
from dataclasses import replace

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.assign import DISTANCES, HierarchicalAssigner, PriorGrid, receptive_field_distance
from rfla.assign.distance import Distance, dotd, get_distance, nwd, simd
from rfla.cfg import model_schema
from rfla.errors import ConfigError
from rfla.models import build_detector

BOX, PRIOR = torch.tensor([[0.0, 0.0, 4.0, 8.0]]), torch.tensor([[1.0, 2.0, 9.0, 10.0]])
# centres (2, 4) and (5, 6): dx = -3, dy = -2; w1 = 4, h1 = 8, w2 = h2 = 8
KL = (64 / 16 + 64 / 64 + 4 * 9 / 16 + 4 * 4 / 64 + math.log(16 / 64) + math.log(64 / 64) - 2) / 2
REVERSE = (
    16 / 64 + 64 / 64 + 4 * 9 / 64 + 4 * 4 / 64 + math.log(64 / 16) + math.log(64 / 64) - 2
) / 2
W2 = 9 + 4 + (16 + 0) / 4
OFFICIAL = {
    "kld": "kl",
    "exp_kld": "exp_kl",
    "kld_10": "kl_10",
    "wd": "wd",
    "iou": "iou",
    "giou": "giou",
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kld", 1 / (1 + KL)),
        ("exp_kld", math.exp(-KL / 10)),
        ("kld_10", 1 / (10 + KL)),
        ("wd", 1 / (1 + W2)),
        ("nwd", math.exp(-math.sqrt(W2) / 12.8)),
        ("dotd", math.exp(-math.sqrt(13) / 12.8)),
        ("symmetric_kld", 1 / (1 + (KL + REVERSE) / 2)),
        (
            "gcd",
            math.exp(-math.sqrt(((9 + 4) * (1 / 16 + 1 / 64) + (4 + 0) * (1 / 64 + 1 / 64)) / 2)),
        ),
        ("simd", math.exp(-math.hypot(3 * 6.13 / 12, 2 * 4.59 / 16) - 4 * 6.13 / 12)),
        ("iou", 18 / (32 + 64 - 18)),  # 3 x 6 in common
        ("giou", 18 / 78 - (90 - 78) / 90),  # hull 9 x 10
        ("diou", 18 / 78 - 13 / (81 + 100)),
    ],
)
def test_by_hand(name, expected):
    assert receptive_field_distance(BOX, PRIOR, name).item() == pytest.approx(expected, rel=2e-5)


def test_every_distance_has_a_hand_worked_row():
    rows = next(m for m in test_by_hand.pytestmark if m.name == "parametrize").args[1]
    assert {row[0] for row in rows} == set(DISTANCES) == set(oracle.SCORES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OFFICIAL)
def test_recorded_metrics(parity, name, dtype):
    """20 x 40 boxes with zero, inverted and huge ones: at most one ulp off the authors' values."""
    _, tensors = parity("rfd_metric")
    expected = tensors[f"{'out' if dtype == torch.float32 else 'out64'}.{OFFICIAL[name]}"]
    scores = receptive_field_distance(tensors["b1"].to(dtype), tensors["b2"].to(dtype), name)
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    assert (scores.view(bits).long() - expected.view(bits).long()).abs().max() <= 1


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_to_the_oracle_in_range_and_without_nan(parity, name):
    _, tensors = parity("rfd_metric")
    scores = receptive_field_distance(tensors["b1"], tensors["b2"], name)
    expected = oracle.SCORES[name](tensors["b1"], tensors["b2"])
    assert torch.equal(scores, expected)
    low, high = DISTANCES[name].value_range
    assert scores.isfinite().all()
    scores = scores[
        (tensors["b1"][:, 2:] >= tensors["b1"][:, :2]).all(dim=1)
    ]  # one box is inside out: no range for it
    assert scores.min() >= low - 1e-6
    assert scores.max() <= high + 1e-6


@pytest.mark.parametrize("name", DISTANCES)
def test_empty_inputs(name):
    assert receptive_field_distance(torch.zeros(0, 4), PRIOR, name).shape == (0, 1)
    assert receptive_field_distance(BOX, torch.zeros(0, 4), name).shape == (1, 0)


@pytest.mark.parametrize("name", DISTANCES)
def test_half_precision_and_autocast_compute_in_float32(name):
    boxes, priors = BOX.half(), PRIOR.half()  # whole numbers: exact in half precision
    expected = receptive_field_distance(BOX, PRIOR, name)
    assert torch.equal(receptive_field_distance(boxes, priors, name), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(receptive_field_distance(BOX, PRIOR, name), expected)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from([name for name, distance in DISTANCES.items() if distance.reach]),
    score=st.floats(0.05, 0.99),
    side=st.floats(1, 800),
    log_ratio=st.floats(-4, 4),
    beyond=st.floats(1.01, 3),
)
def test_reach_bounds_the_offset(name, score, side, log_ratio, beyond):
    """No box, whatever its size, reaches `score` from farther away than `reach` says."""
    distance = DISTANCES[name]
    score *= distance.value_range[1]
    offset = distance.reach(score, side) * beyond + 1e-3
    if not offset < 1e6:
        return
    sizes = torch.tensor(
        [side * math.exp(log_ratio), side, math.hypot(side, 2 * offset)], dtype=torch.float64
    )
    boxes = torch.stack((offset - sizes / 2, -sizes / 2, offset + sizes / 2, sizes / 2), dim=1)
    boxes[2, 1::2] = torch.tensor(
        [-side / 2, side / 2]
    )  # the most tolerant box: only its width adapts
    prior = torch.tensor([[-side / 2, -side / 2, side / 2, side / 2]], dtype=torch.float64)
    assert receptive_field_distance(boxes, prior, name).max() < score


def test_names():
    with pytest.raises(ConfigError, match=r"no distance 'kl'.*did you mean 'kld'"):
        get_distance("kl")
    wide = nwd(25.6)
    assert isinstance(wide, Distance)
    expected = math.exp(-math.sqrt(W2) / 25.6)
    assert receptive_field_distance(BOX, PRIOR, wide).item() == pytest.approx(expected, rel=1e-5)


def manhattan(x, y, out):
    return torch.add(x[0], y[0], out=out).add_(1).reciprocal_()


TOY = Distance(
    terms=lambda axis: (axis.offset.abs(),),
    combine=manhattan,
    formula="1 / (1 + |dx| + |dy|)",
    reference="this test",
    reach=lambda score, side: 1 / score - 1,
)


def test_a_distance_from_outside(monkeypatch):
    """One entry of `DISTANCES` and its name in the schema: then a model can be trained with it."""
    monkeypatch.setitem(DISTANCES, "toy", TOY)
    monkeypatch.setattr(model_schema, "DISTANCES", model_schema.DISTANCES)
    model_schema.DISTANCES.append("toy")
    try:
        net = build_detector("fcos", num_classes=2, settings={"assigner.distance": "toy"})
    finally:
        model_schema.DISTANCES.remove("toy")
    assert net.points.assigner.distance is TOY

    assert receptive_field_distance(BOX, PRIOR, "toy").item() == pytest.approx(1 / (1 + 3 + 2))
    # Points 2, 6, 10, 14 and a box on 6: one in the first stage, and those 4 px off score 1/5.
    grid, box = PriorGrid.points([(1, 4)], [4], [8]), torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    assigner = HierarchicalAssigner("toy", topk=(1, 1), ignore_above=0.2)
    assert assigner(grid, box).tolist() == [-2, 0, -2, -1]


def test_a_window_of_a_distance_from_outside_is_exact():
    generator = torch.Generator().manual_seed(0)
    grid = PriorGrid.anchors([(40, 40), (20, 20)], [4, 8], [35, 91])
    center = torch.rand(50, 2, generator=generator) * 160
    boxes = torch.cat((center - 4, center + 4), dim=1)
    dense = Distance(TOY.terms, TOY.combine, TOY.formula, TOY.reference)  # without `reach`
    windowed = HierarchicalAssigner(TOY, ignore_above=0.2)(grid, boxes)
    assert torch.equal(windowed, HierarchicalAssigner(dense, ignore_above=0.2)(grid, boxes))


def test_an_assigner_travels_to_another_process():
    """By the name of its distance, or by the function and the numbers that made it."""
    boxes = torch.tensor([[1.0, 2.0, 7.0, 9.0]])
    for distance in (*DISTANCES, nwd(20.0), dotd(5.0), simd(2.0, 3.0)):
        there = pickle.loads(pickle.dumps(HierarchicalAssigner(distance))).distance
        here = get_distance(distance)
        assert (there is here) == isinstance(distance, str)
        assert receptive_field_distance(boxes, boxes + 1, there).equal(
            receptive_field_distance(boxes, boxes + 1, here)
        )


def test_a_distance_replaced_in_part_does_not_travel_as_the_one_it_was_made_of():
    changed = replace(nwd(5.0), formula="mine", terms=torch.add, combine=torch.mul, reach=None)
    assert copy.copy(changed).formula == "mine"
    assert pickle.loads(pickle.dumps(replace(changed, made_by=None))).formula == "mine"
