"""Tiles of a scene, and where boxes lie in them, by hand."""

from typing import Any

import numpy as np
import pytest

from rfla.errors import ConfigError
from rfla.predict import merge_tiles, plan_tiles
from rfla.predict.tiles import TileGrid


def test_the_last_tile_is_shifted_inwards() -> None:
    assert plan_tiles(100, 170, 100, 20).tolist() == [[0, 0, 100, 100], [70, 0, 170, 100]]
    assert plan_tiles(100, 180, 100, 20).tolist() == [[0, 0, 100, 100], [80, 0, 180, 100]]
    assert plan_tiles(130, 90, 100, 0).tolist() == [[0, 0, 90, 100], [0, 30, 90, 130]]
    assert plan_tiles(1, 1, 800, 160).tolist() == [[0, 0, 1, 1]]
    assert plan_tiles(1, 2, 1, 0).tolist() == [[0, 0, 1, 1], [1, 0, 2, 1]]
    strip = plan_tiles(1, 30_000, 800, 160)
    assert len(strip) == 47 and strip[-1].tolist() == [29_200, 0, 30_000, 1]


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap", "message"),
    [
        (0, 10, 5, 1, "sizes start at 1"),
        (10, 10, 0, 0, "sizes start at 1"),
        (10, 10, 5, 5, "overlap=5: must be from 0 to 4"),
        (10, 10, 5, -1, "overlap=-1: must be"),
        (10, 10, 5, 2.5, "overlap=2.5: must be whole numbers"),
        (10.0, 10, 5, 2, "height=10.0"),
    ],
)
def test_sizes_that_make_no_sense(
    height: int, width: int, tile: int, overlap: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_tiles(height, width, tile, overlap)


def test_margins() -> None:
    """Tiles 0..100 and 80..180 of a scene of 180 x 100 px: inner edges are x = 100 and x = 80."""
    grid = TileGrid(plan_tiles(100, 180, 100, 20), (100, 180))
    boxes = np.array([[0, 0, 10, 10], [70, 0, 98, 10], [86, 0, 92, 10], [60, 0, 105, 10.0]])
    first, second = np.zeros(4, np.int64), np.ones(4, np.int64)
    assert grid.clearance(boxes, first).tolist() == [90, 2, 8, -5]
    assert grid.clearance(boxes, second).tolist() == [-80, -10, 6, -20]
    assert grid.depth(boxes, first).tolist() == [100, 30, 14, 40]
    assert grid.depth(boxes, second).tolist() == [-70, 18, 12, 25]
    assert grid.held(boxes, 4).tolist() == [1, 0, 2, 0]
    assert grid.held(boxes, -6).tolist() == [1, 1, 2, 1]
    assert grid.met(boxes).tolist() == [1, 2, 2, 2]


def test_tiles_that_were_left_out_hold_nothing() -> None:
    tiles = plan_tiles(100, 180, 100, 20)
    grid = TileGrid(tiles[:1], (100, 180))
    assert grid.met(np.array([[86.0, 0, 92, 10], [120, 0, 130, 10]])).tolist() == [1, 0]


def test_what_is_refused() -> None:
    tiles = plan_tiles(100, 180, 100, 20)
    empty = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="1 lists of boxes for 2 tiles"):
        merge_tiles([empty], tiles, (100, 180))
    with pytest.raises(ConfigError, match="a tile is there twice"):
        merge_tiles([empty, empty], tiles[[0, 0]], (100, 180))
    with pytest.raises(ConfigError, match="must form a grid"):
        merge_tiles([empty, empty], [[0, 0, 100, 100], [0, 0, 90, 100]], (100, 180))
    for wrong in ([[0, 0, 100]], [0, 0, 100, 100], [[0, 0, 99.5, 100]], [[0, 0, 100], [80]]):
        with pytest.raises(ConfigError, match=r"tiles must be \(M, 4\) whole numbers"):
            merge_tiles([empty], wrong, (100, 180))
    assert [len(part) for part in merge_tiles([], [], (100, 180))] == [0, 0, 0]
    with pytest.raises(ConfigError, match="merge=best"):
        merge_tiles([empty, empty], tiles, (100, 180), merge="best")  # type: ignore[arg-type]
    assert [len(part) for part in merge_tiles([empty, empty], tiles, (100, 180))] == [0, 0, 0]
    assert [len(part) for part in merge_tiles([([], [], [])] * 2, tiles, (100, 180))] == [0, 0, 0]
    for entry in [
        (np.zeros((2, 4)), np.zeros(1), np.zeros(1)),
        (np.zeros((2, 3)), np.zeros(2), np.zeros(2)),
        (np.zeros((1, 4)), np.zeros((1, 1)), np.zeros(1)),
    ]:
        with pytest.raises(ConfigError, match=r"tile 1: boxes \(n, 4\), scores"):
            merge_tiles([empty, entry], tiles, (100, 180))
    with pytest.raises(ConfigError, match="tile 0: not boxes, scores, labels"):
        merge_tiles([empty[:2], empty], tiles, (100, 180))  # type: ignore[list-item]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("boxes_there", [[], [[1, 2, 9, 12]]])
def test_a_first_tile_of_whole_numbers_rounds_no_other(library: str, boxes_there: Any) -> None:
    """Empty tiles of any type, and boxes typed by hand, beside a network's."""
    make: Any = np.array if library == "numpy" else pytest.importorskip("torch").tensor
    whole = np.array(boxes_there, np.int64).reshape(-1, 4)
    ones = np.ones(len(whole), np.int64)
    found = [
        tuple(make(part) for part in (whole, ones, ones)),
        tuple(make(part) for part in ([[10.5, 30.25, 20.75, 41.5]], [0.9], [0])),
    ]
    boxes, scores, labels = merge_tiles(found, [[0, 0, 100, 100], [100, 0, 200, 100]], (100, 200))
    assert np.asarray(boxes)[-1].tolist() == [110.5, 30.25, 120.75, 41.5]
    assert np.asarray(scores)[-1] == pytest.approx(0.9)
    assert np.asarray(labels).dtype == np.int64


def test_tiles_of_several_libraries() -> None:
    """Numbers as the first tile has them: of its library, in a type that holds all."""
    torch = pytest.importorskip("torch")
    tiles = [[0, 0, 100, 100], [100, 0, 200, 100]]
    box = np.array([[10, 30, 20, 41.5]], np.float32)
    one, label = np.array([0.5], np.float32), np.array([1], np.uint16)
    odd = (box[::-1], one.astype(">f4"), label)  # strides and bytes that torch refuses
    ones = torch.ones(1, dtype=torch.int32)
    tensors = (torch.from_numpy(box).half(), torch.from_numpy(one), ones)
    boxes, scores, labels = merge_tiles([tensors, odd], tiles, (100, 200))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
    assert boxes[1].tolist() == [110, 30, 120, 41.5] and labels.tolist() == [1, 1]
    boxes, scores, labels = merge_tiles([odd, tensors], tiles, (100, 200))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)


def test_half_precision_has_no_place_for_a_scene() -> None:
    """A box at 10,001 px: float16 knows every eighth px there."""
    torch = pytest.importorskip("torch")
    tiles = plan_tiles(100, 10_100, 100, 0)
    box = np.array([[1, 1, 5, 5]])
    for dtype in (torch.float16, torch.bfloat16):
        entry = (torch.tensor(box).to(dtype), torch.ones(1).to(dtype), torch.zeros(1).long())
        boxes, scores, _ = merge_tiles([entry] * len(tiles), tiles, (100, 10_100), "none")
        assert boxes[-1].tolist() == [10_001, 1, 10_005, 5]
        assert (boxes.dtype, scores.dtype) == (torch.float32, dtype)
    half = (box.astype(np.float16), np.ones(1, np.float16), np.zeros(1, np.int64))
    boxes, _, _ = merge_tiles([half] * len(tiles), tiles, (100, 10_100), "none")
    assert boxes[-1].tolist() == [10_001, 1, 10_005, 5] and boxes.dtype == np.float32
