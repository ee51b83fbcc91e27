"""The windowed path equals the plain dense oracle, and the GPU's candidates are the CPU's."""

import math
import weakref
from unittest.mock import Mock

import oracle
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rfla.assign import DISTANCES, HierarchicalAssigner, PriorGrid, hierarchical
from rfla.assign.candidates import list_candidates, mask_candidates
from rfla.assign.windows import ValidCells, candidates_per_box, score_windows, window_radius

SIZES = st.sampled_from(["tiny", "any", "sub-pixel", "line", "zero", "aligned", "long", "mixed"])


@st.composite
def grids(draw):
    """1 to 4 levels, strides 3 to 64, square or of several ratios."""
    levels, stride = draw(st.integers(1, 4)), draw(st.sampled_from([3, 4, 5, 8]))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels)]
    strides = [stride * 2**level for level in range(levels)]
    fields = [draw(st.floats(1, 12)) * stride for stride in strides]
    fraction = draw(st.sampled_from([0.25, 1 / 3, 0.5, 0.7, 1.0]))
    if draw(st.booleans()):
        return PriorGrid.points(
            sizes, strides, fields, fraction, draw(st.sampled_from(["half", "corner"]))
        )
    ratios = draw(st.sampled_from([(1.0,), (0.5, 1.0, 2.0), (0.3, 0.5, 1.0, 2.0, 3.0)]))
    return PriorGrid.anchors(sizes, strides, fields, fraction, ratios)


def make_boxes(grid, kind, count, seed):
    """Boxes of one kind, some outside the image.

    Seeded, so that a failing example can be repeated.
    """
    generator = torch.Generator().manual_seed(seed)
    stride = grid.strides[0]
    extent = torch.tensor([grid.feature_sizes[0][1], grid.feature_sizes[0][0]]) * float(stride)
    centre = (torch.rand(count, 2, generator=generator) * 1.3 - 0.15) * extent
    size = torch.exp(torch.rand(count, 2, generator=generator) * 5 + 0.5)  # 1.6 to 245 px
    small = torch.exp(torch.rand(count, 2, generator=generator) * 12 - 10)  # 5e-5 to 7 px
    if kind == "tiny":
        size = 1 + size / 12
    elif kind == "sub-pixel":
        size = small
    elif kind == "line":
        size[:, seed % 2] = [0.0, 1e-4, 1e-3, 1e-2, 0.05][seed % 5]
    elif kind == "zero":
        size = size * 0
    elif kind == "aligned":
        centre = (centre / stride).round() * stride + [0, stride // 2, stride / 2][seed % 3]
        size = torch.full((count, 2), [4.0, 8.0, 12.0, 16.0, 17.5, 45.5][seed % 6])
    elif kind == "long":
        size = torch.tensor([1.0, 400.0]).expand(count, 2).clone()
        size[::2] = size[::2].flip(1)
    elif kind == "mixed":
        size = torch.where(torch.rand(count, 2, generator=generator) < 0.3, small, size)
    boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    if count > 3 and seed % 3 == 0:
        boxes[count // 2 :] = boxes[: count - count // 2].clone()  # duplicates
    return boxes


def oracle_case():
    """The choices of one comparison with the oracle."""
    choices = {
        "grid": grids(),
        "kind": SIZES,
        "count": st.sampled_from([0, 1, 3, 10, 40]),
        "seed": st.integers(0, 2**16),
        "distance": st.sampled_from(list(DISTANCES)),
        "topk": st.tuples(st.integers(1, 9), st.integers(1, 4)),
        "decay": st.sampled_from([0.9, 1.0, 0.5, 1.2]),
        "ignore_above": st.sampled_from([0.8, 0.5, None]),
        "conflict": st.sampled_from(["last", "smallest"]),
        "size": st.one_of(st.none(), st.tuples(st.integers(1, 330), st.integers(1, 330))),
        "border": st.sampled_from([None, 0, 5, 30]),
    }
    return st.fixed_dictionaries(choices)


def check_against_oracle(case):
    grid, distance, topk, decay = case["grid"], case["distance"], case["topk"], case["decay"]
    ignore_above, conflict, size = case["ignore_above"], case["conflict"], case["size"]
    boxes = make_boxes(grid, case["kind"], case["count"], case["seed"])
    border = None if size is None else case["border"]
    assigner = HierarchicalAssigner(distance, topk, decay, False, ignore_above, conflict)
    matched = assigner(grid, boxes, image_size=size, allowed_border=border)
    valid = None if size is None else grid.valid(size, border)
    expected = oracle.assign(
        grid.boxes, grid.shape_group, boxes, distance, topk, decay, ignore_above, conflict, valid
    )
    assert torch.equal(matched, expected)


RELAXED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=100, **RELAXED)
@given(case=oracle_case())
def test_equals_the_dense_oracle(case):
    check_against_oracle(case)


@pytest.mark.slow
@settings(max_examples=1000, **RELAXED)
@given(case=oracle_case())
def test_equals_the_dense_oracle_at_length(case):
    check_against_oracle(case)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    kinds=st.lists(SIZES, min_size=1, max_size=5),
    sized=st.booleans(),
    distance=st.sampled_from(list(DISTANCES)),
)
def test_a_batch_equals_its_images(seed, kinds, sized, distance):
    grid = PriorGrid.anchors([(20, 30), (10, 15)], [4, 8], [30, 70])
    boxes = [make_boxes(grid, kind, (seed + 7 * i) % 12, seed + i) for i, kind in enumerate(kinds)]
    sizes = [(40 + 9 * i, 120 - 11 * i) for i in range(len(kinds))] if sized else None
    ignore = [torch.tensor([[0.0, 0.0, 20.0, 10.0 * i]]) for i in range(len(kinds))]
    for assigner in (
        HierarchicalAssigner(distance),
        HierarchicalAssigner(distance, centers_inside=True, conflict="smallest"),
    ):
        many = assigner.batch(grid, boxes, ignore, sizes, 0 if sized else None)
        for i, row in enumerate(many):
            one = assigner(
                grid, boxes[i], ignore[i], sizes[i] if sized else None, 0 if sized else None
            )
            assert torch.equal(row, one)


@pytest.mark.parametrize(
    "distance", [name for name, distance in DISTANCES.items() if distance.reach]
)
@pytest.mark.parametrize("kind", ["tiny", "any", "aligned", "long"])
def test_masked_candidates_equal_listed_ones(distance, kind):
    """What a GPU does, on the CPU: the same candidates, without reading a size from the device."""
    grid = PriorGrid.anchors([(40, 50), (20, 25)], [4, 8], [35, 91])
    for seed in range(2):
        boxes = make_boxes(grid, kind, 25, seed)
        for topk, above in (
            ((3, 1), (None, 0.8)),
            ((1, 3), (0.8, None)),
            ((2,), (0.5,)),
        ):  # one stage or two
            fields = [grid, grid.scaled(0.9)][: len(topk)]
            radius = max(
                window_radius(one, DISTANCES[distance], k, score)
                for one, k, score in zip(fields, topk, above, strict=True)
            )
            windows = score_windows(
                fields, DISTANCES[distance], boxes, min(int(radius), 30), ValidCells.of_grid(grid)
            )
            with torch.device("meta"):  # another default device than that of the boxes
                listed, unsure = list_candidates(windows, topk, above)
            for stage, (k, score) in enumerate(zip(topk, above, strict=True)):
                masked, here = mask_candidates(windows, stage, k, score), listed.stage == stage
                undecided = unsure[stage] if unsure else torch.zeros(0, dtype=torch.int64)
                decided = ~torch.isin(masked.box, undecided)
                assert pairs(masked, masked.is_positive & decided) == pairs(
                    listed, listed.is_positive & here
                )
                assert pairs(masked, masked.is_ignored) == pairs(listed, listed.is_ignored & here)
                assert (masked.is_positive.sum(dim=0)[undecided] <= 2 * k).all()


def pairs(candidates, chosen):
    boxes = candidates.box.expand_as(candidates.prior)
    return set(zip(boxes[chosen].tolist(), candidates.prior[chosen].tolist(), strict=True))


def test_a_plateau_takes_the_same_k_on_both_ways():
    """Scores that all underflow to 0: the nearest, then the lowest index."""
    grid = PriorGrid.points([(40, 40)], [4], [40], fraction=1.0)
    boxes = torch.tensor([[41.0, 42.0, 41.0, 42.0], [80.0, 80.0, 80.0, 80.0]])
    windows = score_windows([grid], DISTANCES["exp_kld"], boxes, 3, ValidCells.of_grid(grid))
    candidates = mask_candidates(windows, 0, 3, None)
    expected = HierarchicalAssigner("exp_kld", topk=(3, 1), decay=1.0, ignore_above=None)(
        grid, boxes
    )
    for box in (0, 1):
        chosen = candidates.prior[candidates.is_positive & (candidates.box == box)]
        assert sorted(chosen.tolist()) == (expected == box).nonzero().flatten().tolist()


def test_window_radius_by_hand():
    """P2 points of 15.75 px, the second stage: 0.403 * 15.75 = 6.35 px, 1.6 cells, so 2.

    K = 3 needs 2 + 1.
    """
    grid = PriorGrid.points([(50, 50)], [4], [31.5])
    kld = DISTANCES["kld"]
    assert kld.reach(0.8, 15.75) == pytest.approx(15.75 / 2 * math.sqrt(math.exp(0.5) - 1))
    assert window_radius(grid, kld, 3, None) == 3
    assert window_radius(grid, kld, 1, 0.8) == 2
    assert window_radius(grid, kld, 1, 0.0) == math.inf
    assert window_radius(grid, DISTANCES["iou"], 1, None) == math.inf
    assert window_radius(grid, DISTANCES["kld_10"], 1, 0.8) == 2  # its scores end at 0.1: no band
    assert candidates_per_box(grid, 3) == 49


def test_ordinary_boxes_never_need_the_dense_path(monkeypatch):
    """The fall-back for undecided boxes is for degenerate ones.

    2 to 64 px boxes on 800 x 800 never take it.
    """

    dense = Mock(side_effect=AssertionError("dense path taken"))
    monkeypatch.setattr(hierarchical, "dense_candidates", dense)
    sizes = [(-(-800 // s), -(-800 // s)) for s in (4, 8, 16, 32, 64)]
    for grid in (
        PriorGrid.points(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555]),
        PriorGrid.anchors(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555]),
    ):
        generator = torch.Generator().manual_seed(1)
        centre, size = (
            torch.rand(1000, 2, generator=generator) * 800,
            torch.rand(1000, 2, generator=generator) * 62 + 2,
        )
        boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
        for distance in ("kld", "wd", "nwd", "gcd", "symmetric_kld", "dotd", "simd", "kld_10"):
            HierarchicalAssigner(distance)(grid, boxes)
    dense.assert_not_called()


@pytest.mark.parametrize(
    ("distance", "conflict"), [("kld", "last"), ("wd", "smallest"), ("simd", "last")]
)
def test_a_device_is_never_waited_for(distance, conflict):
    """Tensors on `meta` have no values: reading one, or a size that depends on one, raises.

    The path is a GPU's.
    """
    sizes = [(-(-800 // s), -(-800 // s)) for s in (4, 8, 16, 32, 64)]
    grid = PriorGrid.anchors(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555]).to("meta")
    boxes = [torch.zeros(count, 4, device="meta") for count in (30, 0, 5)]
    ignore = [torch.zeros(2, 4, device="meta"), None, None]
    assigner = HierarchicalAssigner(distance, conflict=conflict, centers_inside=True)
    for arguments in ((), (ignore, [(800, 600)] * 3, 0), (None, [(640, 800)] * 3, None)):
        matched = assigner.batch(grid, boxes, *arguments)
        assert matched.shape == (3, len(grid))
        assert matched.device.type == "meta"


class Allocations(TorchDispatchMode):
    """Bytes of the tensors that are alive at once, at most."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage._cdata)
        self.peak = max(self.peak, self.now)
        return result

    def freed(self, key):
        self.now -= self.sizes.pop(key)


@pytest.mark.parametrize("kind", ["points", "anchors"])
def test_memory_of_2000_boxes_on_a_device(kind):
    """Where nothing may wait for the device: the tensors of a call take under 64 MiB together."""
    sizes = [(-(-800 // s), -(-800 // s)) for s in (4, 8, 16, 32, 64)]
    grid = getattr(PriorGrid, kind)(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555]).to("meta")
    boxes = torch.zeros(2000, 4, device="meta")
    HierarchicalAssigner()(grid, boxes)  # the first call makes the shrunken grid, which is kept
    with Allocations() as allocations:
        HierarchicalAssigner()(grid, boxes)
    assert 8 * 2**20 < allocations.peak < 64 * 2**20
