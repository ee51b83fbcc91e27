"""Seams on painted scenes whose truth is known: a fake detector reports what each tile shows.

Boxes are whole px or quarters of them, so that what comes out can be compared to the bit.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfla.predict import merge_tiles, pairs, plan_tiles
from rfla.predict.merge import in_scene
from rfla.predict.pairs import intersections
from rfla.predict.seams import SeamMerger
from rfla.predict.tiles import TileGrid

Array = NDArray[Any]
CLASSES = 3


def detect(boxes: Array, labels: Array, tiles: Array, seed: int = 0, **faults: Any) -> list[Any]:
    """Report all objects in each tile, cut to it, with random scores.

    Faults: `flip` gives cut objects another class, `short` ends cut boxes up to so many px short of
    the edge, `cut_best` scores cut ones higher, `jitter` is a standard deviation of all sides.
    """
    rng = np.random.default_rng(seed)
    found = []
    for tile in tiles.astype(float):
        seen = np.concatenate(
            [np.maximum(boxes[:, :2], tile[:2]), np.minimum(boxes[:, 2:], tile[2:])], axis=1
        )
        rows = (seen[:, 2:] > seen[:, :2]).all(axis=1)
        cut = seen[rows] != boxes[rows]
        seen, label = seen[rows], labels[rows].copy()
        spare = np.maximum(np.tile(seen[:, 2:] - seen[:, :2], 2) - 1, 0)
        short = np.minimum(rng.uniform(0, faults.get("short", 0) + 1e-9, seen.shape), spare) * cut
        seen = seen + np.where(faults.get("short", 0), short, 0) * [1, 1, -1, -1]
        seen = seen + rng.normal(0, 1, seen.shape) * faults.get("jitter", 0)
        if faults.get("flip"):
            label[cut.any(1)] += rng.integers(1, CLASSES, cut.any(1).sum())
        score = rng.random(len(seen)) / 2 + (cut.any(axis=1) if faults.get("cut_best") else 0) / 2
        found.append((seen - np.tile(tile[:2], 2), score, label % CLASSES))
    return found


def against_truth(merged: tuple[Array, ...], boxes: Array, labels: Array) -> tuple[int, int, int]:
    """Count objects that are there twice, lost, and what is no object."""
    out = Counter(map(tuple, np.column_stack([merged[0], merged[2]]).round(6).tolist()))
    truth = set(map(tuple, np.column_stack([boxes, labels]).round(6).tolist()))
    twice = sum(count - 1 for box, count in out.items() if box in truth)
    return twice, len(truth - set(out)), sum(out[box] for box in set(out) - truth)


def apart(boxes: Array, labels: Array, gap: float, across_classes: bool = True) -> Any:
    """Keep boxes that are `gap` px from those before them (or only from those of their class)."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        others = boxes[kept]
        near = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) > -gap).all(
            1
        )
        if not (near & (across_classes | (labels[kept] == labels[i]))).any():
            kept.append(i)
    return boxes[kept], labels[kept]


def painted(
    seed: int, count: int, shape: tuple[int, int], small: int, large: int
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    limit = np.array([shape[1], shape[0]])
    size = np.minimum(rng.integers(small, large + 1, (count, 2)), limit)
    corner = np.floor(rng.random((count, 2)) * (limit - size + 1))
    return np.concatenate([corner, corner + size], 1).astype(float), rng.integers(0, CLASSES, count)


def grid(shape: tuple[int, int], side: int, gap: int) -> tuple[Array, Array]:
    """Return squares in rows and columns with a gap between them, of one class."""
    x, y = np.meshgrid(
        np.arange(0, shape[1] - side + 1, side + gap), np.arange(0, shape[0] - side + 1, side + gap)
    )
    corner = np.stack([x.ravel(), y.ravel()], 1).astype(float)
    return np.concatenate([corner, corner + side], 1), np.zeros(len(corner), np.int64)


FAULTS = [
    {},
    {"cut_best": True},
    {"short": 3},
    {"flip": True},
    {"flip": True, "short": 3, "cut_best": True},
]


@pytest.mark.parametrize("faults", FAULTS, ids=str)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tile=st.integers(24, 130),
    share=st.floats(0.05, 0.7),
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    gap=st.sampled_from([0, 1, 3]),
)
def test_nothing_twice_nothing_lost(
    faults: dict[str, Any], seed: int, tile: int, share: float, height: int, width: int, gap: int
) -> None:
    """Objects up to the overlap itself, touching or apart, over any number of tiles and borders."""
    overlap = max(int(tile * share), 4)
    small = seed % overlap + 1
    boxes, labels = painted(seed, 120, (height, width), small, overlap)
    boxes, labels = apart(boxes, labels, gap)
    tiles = plan_tiles(height, width, tile, overlap)
    merged = merge_tiles(detect(boxes, labels, tiles, seed, **faults), tiles, (height, width))
    assert against_truth(merged, boxes, labels) == (0, 0, 0)


@pytest.mark.parametrize("faults", FAULTS[:3], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_classes_on_each_other(faults: dict[str, Any], seed: int) -> None:
    """Objects of different classes overlap as they like: a car on a ship."""
    boxes, labels = apart(*painted(seed, 250, (300, 300), 4, 40), 0, across_classes=False)
    tiles = plan_tiles(300, 300, 100, 40)
    merged = merge_tiles(detect(boxes, labels, tiles, seed, **faults), tiles, (300, 300))
    assert against_truth(merged, boxes, labels) == (0, 0, 0)


@pytest.mark.parametrize(("side", "gap"), [(5, 0), (6, 1), (12, 1), (3, 1)])
@pytest.mark.parametrize("faults", FAULTS[:4], ids=str)
def test_dense_grids(side: int, gap: int, faults: dict[str, Any]) -> None:
    boxes, labels = grid((211, 317), side, gap)
    for tile, overlap in [(64, 16), (50, 12), (97, 48)]:
        tiles = plan_tiles(211, 317, tile, overlap)
        merged = merge_tiles(detect(boxes, labels, tiles, **faults), tiles, (211, 317))
        assert against_truth(merged, boxes, labels) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_with_jitter(seed: int) -> None:
    """2,820 squares of 6 px, 1 px apart, sides off by 0.4 px: as many come out."""
    boxes, labels = grid((329, 420), 6, 1)
    tiles = plan_tiles(329, 420, 100, 20)
    merged = merge_tiles(detect(boxes, labels, tiles, seed, jitter=0.4), tiles, (329, 420))
    assert len(boxes) == len(merged[0]) == 2820
    nearest = np.abs(merged[0][:, None] - boxes[None]).max(axis=2).argmin(axis=1)
    assert len(set(nearest.tolist())) == 2820


def test_objects_larger_than_the_overlap_are_joined() -> None:
    """One object over three tiles in a row, one that two tiles cut: the union of their parts."""
    boxes, labels = np.array([[10.0, 20, 210, 40], [60, 50, 110, 60]]), np.array([1, 0])
    tiles = plan_tiles(100, 260, 100, 20)
    for faults in ({}, {"cut_best": True}):
        merged = merge_tiles(detect(boxes, labels, tiles, **faults), tiles, (100, 260))
        assert against_truth(merged, boxes, labels) == (0, 0, 0)


def test_a_missed_whole() -> None:
    """What two tiles saw whole stays if one of them misses it; a mere part of it does not.

    Tiles 0..100 and 80..180. At 84..94 both see it whole. At 70..90 the second sees 80..90 alone.
    """
    tiles = plan_tiles(100, 180, 100, 20)
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    whole = (np.array([[4.0, 20, 14, 30]]), np.array([0.5]), np.array([0]))
    part = (np.array([[0.0, 20, 10, 30]]), np.array([0.5]), np.array([0]))
    assert merge_tiles([nothing, whole], tiles, (100, 180))[0].tolist() == [[84, 20, 94, 30]]
    assert len(merge_tiles([nothing, part], tiles, (100, 180))[0]) == 0


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        # Both are clear of x = 100 and x = 80, by 7 and 5 px: the better score.
        ((85, 93, 0.6), (85.5, 93, 0.9), 85.5),
        ((85, 93, 0.9), (85.5, 93, 0.6), 85.0),
        # The first ends 3 px from its edge, so its view may be cut, however sure it is.
        ((85, 97, 0.9), (85.5, 97, 0.6), 85.5),
    ],
)
def test_of_those_that_saw_the_whole_the_best_score_stays(
    first: tuple[float, float, float], second: tuple[float, float, float], kept: float
) -> None:
    """Tiles 0..100 and 80..180 see one object; the box that stays is one of theirs."""
    tiles = plan_tiles(100, 180, 100, 20)
    found = [
        (np.array([[x1 - left, 10.0, x2 - left, 20]]), np.array([score]), np.array([0]))
        for left, (x1, x2, score) in ((0, first), (80, second))
    ]
    boxes, scores, _ = merge_tiles(found, tiles, (100, 180))
    assert boxes[:, 0].tolist() == [kept] and scores.tolist() in ([first[2]], [second[2]])


def test_any_order_of_tiles_and_one_tile() -> None:
    boxes, labels = painted(1, 400, (300, 500), 2, 30)
    tiles = plan_tiles(300, 500, 96, 30)
    found = detect(boxes, labels, tiles, jitter=0.7)
    order = np.random.default_rng(0).permutation(len(tiles))
    shuffled = [found[i] for i in order]
    for rule in ("seam", "nms", "nmm", "none"):
        straight = merge_tiles(found, tiles, (300, 500), merge=rule)
        other = merge_tiles(shuffled, tiles[order], (300, 500), merge=rule)
        for one, two in zip(straight, other, strict=True):
            np.testing.assert_array_equal(one, two)
        given_ = tuple(part.astype(np.float32) for part in found[0])
        alone = merge_tiles([given_], plan_tiles(96, 96, 96, 30), (96, 96), merge=rule)
        for one, two in zip(alone, given_, strict=True):
            assert one.dtype == two.dtype and (one == two).all()


def test_away_from_seams_nothing_changes() -> None:
    """Boxes that no other tile reaches come out to the bit, however they overlap in their tile."""
    tiles = plan_tiles(100, 180, 100, 20)
    rng = np.random.default_rng(0)
    corner = rng.random((500, 2)).astype(np.float32) * [60, 80]
    inner = np.concatenate([corner, corner + rng.random((500, 2)) * 20], 1).astype(np.float32)
    scores, labels = rng.random(500).astype(np.float32), np.zeros(500, np.int64)
    seam = (np.array([[0, 5, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    for rule in ("seam", "nms", "nmm"):
        boxes, *_ = merge_tiles([(inner, scores, labels), seam], tiles, (100, 180), merge=rule)
        np.testing.assert_array_equal(boxes[:500], inner)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), large=st.integers(2, 40), jitter=st.floats(0, 3))
def test_merged_boxes_do_not_grow(seed: int, large: int, jitter: float) -> None:
    """Boxes of the output are boxes of a tile, unless parts longer than the overlap were joined."""
    overlap = 20
    tiles = plan_tiles(200, 200, 60, overlap)
    boxes, labels = painted(seed, 150, (200, 200), 1, large)
    found = detect(boxes, labels, tiles, seed, jitter=jitter)
    merged, *_ = merge_tiles(found, tiles, (200, 200))
    given_ = {
        tuple(box + np.tile(tile[:2], 2))
        for tile, one in zip(tiles, found, strict=True)
        for box in one[0]
    }
    for box in merged:
        assert tuple(box) in given_ or (box[2:] - box[:2]).max() > overlap


def test_known_rules_by_hand() -> None:
    """Two tiles 0..100 and 80..180 see one object as 82..92 (0.6) and 84..94 (0.9): IoU 0.67.

    A box of another class on the same place stays, unless classes are compared.
    """
    tiles = plan_tiles(100, 180, 100, 20)
    first = (
        np.array([[82.0, 10, 92, 20], [82, 10, 92, 20]]),
        np.array([0.6, 0.5]),
        np.array([0, 1]),
    )
    second = (np.array([[4.0, 10, 14, 20]]), np.array([0.9]), np.array([0]))
    result = {
        (rule, classes): merge_tiles([first, second], tiles, (100, 180), rule, classes=classes)[
            0
        ].tolist()
        for rule in ("nms", "nmm", "none")
        for classes in (False, True)
    }
    best, union, other = [84, 10, 94, 20], [82, 10, 94, 20], [82, 10, 92, 20]
    assert result["nms", False] == [other, best] and result["nms", True] == [best]
    assert result["nmm", False] == [other, union] and result["nmm", True] == [union]
    assert result["none", False] == [other, other, best]


def test_the_smaller_box_as_measure() -> None:
    """A box of 4 x 4 px inside one of 10 x 10 px: IoU 0.16, intersection over the smaller 1."""
    tiles = plan_tiles(100, 180, 100, 20)
    large = (np.array([[84.0, 10, 94, 20]]), np.array([0.9]), np.array([0]))
    small = (np.array([[6.0, 12, 10, 16]]), np.array([0.8]), np.array([0]))
    counts = [
        len(merge_tiles([large, small], tiles, (100, 180), "nms", metric)[0])
        for metric in ("iou", "ios")
    ]
    assert counts == [2, 1]


def test_greedy_suppression_is_not_transitive() -> None:
    """a suppresses b, and b would suppress c: c stays, as NMS has it."""
    tiles = plan_tiles(100, 180, 100, 60)  # 0..100 and 40..140, 80..180
    rows = [
        (np.array([[50.0, 0, 60, 10], [56, 0, 66, 10]]), np.array([0.9, 0.7]), np.array([0, 0])),
        (np.array([[13.0, 0, 23, 10]]), np.array([0.8]), np.array([0])),
        (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)),
    ]
    boxes, scores, _ = merge_tiles(rows, tiles, (100, 180), "nms")
    assert scores.tolist() == [0.9, 0.7] and boxes[:, 0].tolist() == [50, 56]


def test_tensors_come_back_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    boxes, labels = painted(3, 100, (200, 200), 2, 20)
    tiles = plan_tiles(200, 200, 80, 20)
    found = detect(boxes, labels, tiles)
    expected = merge_tiles(found, tiles, (200, 200))
    tensors = [tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in one) for one in found]
    merged = merge_tiles(tensors, torch.from_numpy(tiles), (200, 200))
    for one, two in zip(merged, expected, strict=True):
        assert isinstance(one, torch.Tensor)
        np.testing.assert_array_equal(one.numpy(), two)


def test_each_box_is_compared_with_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the boxes on four times the area: as many pairs a box, not four times as many.

    A third more, in fact: more of a larger scene lies at seams.
    """
    compared: list[int] = []

    def counted(one: Array, other: Array) -> Array:
        compared.append(len(one))
        return intersections(one, other)

    monkeypatch.setattr(pairs, "intersections", counted)
    pairs_per_box = {}
    for side in (4_000, 8_000):
        boxes, labels = painted(0, side * side // 2_000, (side, side), 3, 30)
        tiles = plan_tiles(side, side, 800, 160)
        found = detect_sorted(boxes, labels, tiles)
        compared.clear()
        merged = merge_tiles(found, tiles, (side, side))
        assert against_truth(merged, boxes, labels)[:2] == (0, 0)
        pairs_per_box[side] = sum(compared) / sum(len(scores) for _, scores, _ in found)
    assert 0 < pairs_per_box[8_000] < 2 * pairs_per_box[4_000]


def all_pairs(
    boxes: Array, tile: Array, label: Array, at_edge: Array, least: float, known: int
) -> Iterator[tuple[Array, Array]]:
    """Yield every pair of boxes of different tiles that overlap, one of them new, by no search."""
    a, b = np.triu_indices(len(boxes), 1)
    wanted = (b >= known) & (tile[a] != tile[b]) & (intersections(boxes[a], boxes[b]) > 0)
    yield a[wanted], b[wanted]


@pytest.mark.parametrize("rule", ["seam", "nms", "nmm"])
@pytest.mark.parametrize("metric", ["iou", "ios"])
@settings(max_examples=12, deadline=None)
@example(seed=1285, classes=False, large=59)
@given(seed=st.integers(0, 10**6), classes=st.booleans(), large=st.integers(2, 90))
def test_pairs_that_are_not_compared_do_not_matter(
    rule: Any, metric: Any, seed: int, classes: bool, large: int
) -> None:
    """Boxes as an untrained network finds them: of all sizes, on each other, cut and whole."""
    rng, tiles = np.random.default_rng(seed), plan_tiles(150, 150, 90, 30)
    found = []
    for _ in tiles:
        low = rng.random((60, 2)) * 90
        size = np.exp(rng.uniform(-1, np.log(large), (60, 2)))
        boxes = np.clip(np.concatenate([low, low + size], axis=1), 0, 90)
        found.append((boxes, rng.random(60), rng.integers(-1, 2, 60) * 10**15))
    how = (tiles, (150, 150), rule, metric, classes)
    merged = merge_tiles(found, *how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfla.predict.seams.overlapping_pairs", all_pairs)
        expected = merge_tiles(found, *how)
    for one, two in zip(merged, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_memory_does_not_grow_with_the_height() -> None:
    """Boxes that wait for the next row of tiles, at most: as many for 25 rows as for 6."""
    most = {}
    for height in (1000, 4040):  # whole steps of 160 px
        boxes, labels = painted(0, height * 3, (height, 500), 4, 20)
        tiles = plan_tiles(height, 500, 200, 40)
        grid, found = TileGrid(tiles, (height, 500)), detect_sorted(boxes, labels, tiles)
        merger, waiting = SeamMerger(grid), []
        for row in range(len(grid.present)):
            numbers = np.flatnonzero(grid.row_column(grid.rank)[0] == row)
            entries = [found[number] for number in numbers]
            merger.add(row, in_scene(entries, grid.rank[numbers], grid))
            assert merger._open is not None
            waiting.append(len(merger._open))
        assert waiting[-1] == 0
        most[height] = max(waiting)
    assert 0 < most[4040] < 1.3 * most[1000]


def detect_sorted(boxes: Array, labels: Array, tiles: Array) -> list[Any]:
    """Do as `detect`, looking at the objects of a row of tiles alone."""
    found: list[Any] = []
    for top in np.unique(tiles[:, 1]):
        row = tiles[tiles[:, 1] == top]
        near = (boxes[:, 3] > top) & (boxes[:, 1] < row[0, 3])
        found += detect(boxes[near], labels[near], row, int(top))
    return found
