"""The k best priors of a box: by hand, against whole sorted rows of the oracle, without waiting."""

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_windows import RELAXED, SIZES, grids, make_boxes

from rfla.assign import DISTANCES, HierarchicalAssigner, PriorGrid, nearest, nearest_priors
from rfla.errors import ConfigError


def by_definition(grid, boxes, k, distance, valid):
    """The definition, box by box: sort all valid priors by (-score, distance, index)."""
    scores = oracle.SCORES[distance](boxes, grid.boxes)
    dx, dy = oracle.terms(boxes, grid.boxes)[:2]
    away = dx**2 + dy**2
    priors, values = [], []
    for row, far in zip(scores, away, strict=True):
        every = [i for i in range(len(row)) if valid[i] and not row[i].isnan()]
        every.sort(key=lambda i: (-row[i].item(), far[i].item(), i))
        best = every[:k]
        priors.append(best + [-1] * (k - len(best)))
        values.append([row[i].item() for i in best] + [-torch.inf] * (k - len(best)))
    return torch.tensor(priors).reshape(-1, k), torch.tensor(values).reshape(-1, k)


def test_points_in_a_row_by_hand():
    """Points at 2, 6, 10, 14 px with fields of 4 px, a box of 4 px: KL = 4 dx^2 / 16 / 2.

    The box at 7 px is 1 px from the point at 6: KL 1 / 8; then 3 px from 10, 5 px from 2. That on 6
    px has two equal neighbours, of which the one of lower index comes first.
    """
    grid = PriorGrid.points([(1, 4)], [4], [8])
    boxes = torch.tensor([[5.0, 0.0, 9.0, 4.0], [4.0, 0.0, 8.0, 4.0]])
    found = nearest_priors(grid, [boxes], k=3)
    assert found.prior.tolist() == [[1, 2, 0], [1, 0, 2]]
    expected = [[8 / 9, 1 / (1 + 9 / 8), 1 / (1 + 25 / 8)], [1.0, 1 / 3, 1 / 3]]
    torch.testing.assert_close(found.score, torch.tensor(expected))


def test_fewer_priors_than_asked_for():
    grid = PriorGrid.points([(1, 4)], [4], [8])
    box = torch.tensor([[5.0, 0.0, 9.0, 4.0]])
    found = nearest_priors(grid, [box], k=6)
    assert found.prior.tolist() == [[1, 2, 0, 3, -1, -1]]
    assert found.score[0, 4:].tolist() == [-torch.inf] * 2
    # an image of 8 px has two of the points, one whose field stays inside it
    sized = nearest_priors(grid, [box], 3, image_sizes=[(4, 8)])
    assert sized.prior.tolist() == [[1, 0, -1]]
    inside = nearest_priors(grid, [box], 3, image_sizes=[(8, 8)], allowed_border=0)
    assert inside.prior.tolist() == [[0, -1, -1]]


def test_a_plateau_yields_the_nearest_of_lowest_index():
    """A box without a side scores 0 everywhere; on (6, 6) four neighbours are as near."""
    grid = PriorGrid.points([(3, 3)], [4], [8])
    found = nearest_priors(grid, [torch.tensor([[6.0, 6.0, 6.0, 6.0]])], 4, "exp_kld")
    assert found.score.tolist() == [[0.0] * 4]
    assert found.prior.tolist() == [[4, 1, 3, 5]]


def test_no_boxes():
    grid = PriorGrid.points([(40, 40)], [4], [8])
    none = torch.zeros(0, 4)
    for boxes in ([], [none], [none, none]):
        found = nearest_priors(grid, boxes or [none], 3)
        assert found.prior.shape == found.score.shape == (0, 3)
        assert found.prior.dtype == torch.int64


def test_a_box_that_is_no_box_has_no_priors():
    grid = PriorGrid.points([(40, 40)], [4], [8])
    found = nearest_priors(grid, [torch.tensor([[torch.nan, 0.0, 4.0, 4.0]])], 3)
    assert found.prior.tolist() == [[-1, -1, -1]]


@settings(max_examples=100, **RELAXED)
@given(
    grid=grids(),
    kind=SIZES,
    count=st.sampled_from([1, 3, 10]),
    seed=st.integers(0, 2**16),
    distance=st.sampled_from(list(DISTANCES)),
    k=st.integers(1, 12),
    size=st.one_of(st.none(), st.tuples(st.integers(1, 330), st.integers(1, 330))),
    border=st.sampled_from([None, 0, 5, 30]),
)
def test_equals_the_definition(grid, kind, count, seed, distance, k, size, border):
    boxes = make_boxes(grid, kind, count, seed)
    border = None if size is None else border
    sizes = None if size is None else [size]
    found = nearest_priors(grid, [boxes], k, distance, sizes, border)
    valid = grid.valid(size, border)
    prior, score = by_definition(grid, boxes, k, distance, valid)
    assert torch.equal(found.prior, prior)
    assert torch.equal(found.score, score)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    kinds=st.lists(SIZES, min_size=1, max_size=4),
    sized=st.booleans(),
    distance=st.sampled_from(["kld", "wd", "iou"]),
)
def test_a_batch_equals_its_images(seed, kinds, sized, distance):
    grid = PriorGrid.anchors([(40, 60), (20, 30)], [4, 8], [30, 70])
    boxes = [make_boxes(grid, kind, (seed + 7 * i) % 12, seed + i) for i, kind in enumerate(kinds)]
    sizes = [(80 + 9 * i, 220 - 11 * i) for i in range(len(kinds))] if sized else None
    many = nearest_priors(grid, boxes, 5, distance, sizes)
    each = [
        nearest_priors(grid, [own], 5, distance, None if sizes is None else [sizes[i]])
        for i, own in enumerate(boxes)
    ]
    assert torch.equal(many.prior, torch.cat([one.prior for one in each]))
    assert torch.equal(many.score, torch.cat([one.score for one in each]))


def test_they_are_what_the_assigner_gives_a_lone_box():
    """Without ties at the k-th place."""
    grid = PriorGrid.points([(64, 64), (32, 32)], [4, 8], [35, 91])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner = torch.rand(2, generator=generator) * 200
        box = torch.cat((corner, corner + 2 + torch.rand(2, generator=generator) * 30))[None]
        found = nearest_priors(grid, [box], 3)
        first = HierarchicalAssigner(topk=(3, 1), decay=1.0, ignore_above=None)(grid, box)
        assert sorted(found.prior[0].tolist()) == (first == 0).nonzero().flatten().tolist()


def test_a_box_so_far_away_that_the_columns_tie():
    """At 1e9 px float32 counts in steps of 64 px, 16 columns: the first of them, not the nearest.

    They lie beyond the window, so whole rows decide.
    """
    grid = PriorGrid.points([(40, 40)], [4], [40])
    box = torch.tensor([[1e9, 0.0, 1e9 + 640, 4.0]])
    found = nearest_priors(grid, [box], 3)
    prior, score = by_definition(grid, box, 3, "kld", grid.valid(None))
    assert torch.equal(found.prior, prior) and torch.equal(found.score, score)


def test_ordinary_boxes_are_decided_by_their_windows(monkeypatch):
    monkeypatch.setattr(nearest, "pairwise", lambda *_: pytest.fail("whole rows were scored"))
    sizes = [(-(-800 // s), -(-800 // s)) for s in (4, 8, 16, 32, 64)]
    grid = PriorGrid.points(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555])
    generator = torch.Generator().manual_seed(1)
    centre, size = (
        torch.rand(500, 2, generator=generator) * 800,
        torch.rand(500, 2, generator=generator) * 62 + 2,
    )
    boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    assert (nearest_priors(grid, [boxes], 12).prior >= 0).all()


def test_a_device_is_never_waited_for():
    """Tensors on `meta` have no values: reading one, or a size that depends on one, raises."""
    sizes = [(-(-800 // s), -(-800 // s)) for s in (4, 8, 16, 32, 64)]
    grid = PriorGrid.points(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555]).to("meta")
    boxes = [torch.zeros(count, 4, device="meta") for count in (30, 0, 5)]
    for image_sizes in (None, [(640, 800)] * 3):
        found = nearest_priors(grid, boxes, 12, image_sizes=image_sizes)
        assert found.prior.shape == found.score.shape == (35, 12)
        assert found.prior.device.type == "meta"


def test_wrong_arguments():
    grid, box = PriorGrid.points([(4, 4)], [4], [8]), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        nearest_priors(grid, [box], 0)
    with pytest.raises(ValueError, match="image size"):
        nearest_priors(grid, [box], 1, allowed_border=0)
    with pytest.raises(ConfigError, match="did you mean 'kld'"):
        nearest_priors(grid, [box], 1, "kl")
