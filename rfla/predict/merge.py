"""The detections of all tiles of a scene in one call: arrays or tensors in, the same out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfla.errors import ConfigError
from rfla.predict.columns import Found
from rfla.predict.seams import Metric, Rule, SeamMerger
from rfla.predict.tiles import Integers, TileGrid

RULES = ("seam", "nms", "nmm", "none")
METRICS = ("iou", "ios")


def merge_tiles(
    found: Sequence[tuple[Any, Any, Any]],
    tiles: Any,
    shape: tuple[int, int],
    merge: Rule = "seam",
    metric: Metric = "iou",
    classes: bool = False,
) -> tuple[Any, Any, Any]:
    """Merge what was found in the tiles of a scene, so that no object is there twice and none lost.

    Args:
        found: For each tile boxes (n, 4) xyxy px of the tile, scores (n,), labels (n,).
        tiles: (M, 4) xyxy px of the scene, as `plan_tiles` makes them, in any order; tiles may be
            left out.
        shape: Height and width of the scene, px.
        merge: `seam` (see docs/prediction.md), `nms`, `nmm`, or `none`.
        metric: `iou` or `ios`: overlap as a share of the union or of the smaller box.
        classes: Compare boxes of different classes too.

    Returns:
        Boxes (N, 4) px of the scene, scores (N,), labels (N,): numpy or torch as given, in the
        order of tiles row by row, whatever order they came in. With one tile: what was given.

    Raises:
        ConfigError: An unknown rule, tiles that form no grid, or not one entry for each tile.
    """
    if merge not in RULES or metric not in METRICS:
        raise ConfigError(
            f"merge={merge}, metric={metric}: merge is one of {', '.join(RULES)}, metric one of "
            f"{', '.join(METRICS)}"
        )
    grid = TileGrid(tiles, shape)
    if len(found) != len(grid.rank):
        raise ConfigError(f"{len(found)} lists of boxes for {len(grid.rank)} tiles")
    arrays = [tuple(_as_numpy(part) for part in one) for one in found]
    merger = SeamMerger(grid, merge, metric, classes)
    settled = []
    order = np.argsort(grid.rank, kind="stable")
    rows, _ = grid.row_column(grid.rank[order])
    for row in np.unique(rows):
        numbers = order[rows == row]
        entries = [arrays[number] for number in numbers]
        settled.append(merger.add(int(row), in_scene(entries, grid.rank[numbers], grid)))
    merged = Found.joined(settled) if settled else in_scene([], np.zeros(0, np.int64), grid)
    merged = merged.take(np.lexsort((merged.index, merged.tile)))
    columns = (merged.boxes, merged.scores, merged.labels)
    boxes, scores, labels = (
        _like(column, [one[part] for one in found]) for part, column in enumerate(columns)
    )
    return boxes, scores, labels


def in_scene(entries: Sequence[tuple[Any, ...]], rank: Integers, grid: TileGrid) -> Found:
    """Return the boxes of tiles in px of the scene.

    Args:
        entries: For each tile boxes (n, 4) px of the tile, scores (n,), labels (n,).
        rank: (m,) numbers of the tiles in the grid, rising.
        grid: The tiles of the scene.
    """
    counts = np.array([len(entry[1]) for entry in entries], np.int64)
    tile = np.repeat(rank, counts)
    index = np.concatenate([np.arange(count) for count in counts] or [np.zeros(0)])
    empty = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    boxes, scores, labels = (
        np.concatenate(
            [blank, *(np.reshape(entry[part], (-1, *blank.shape[1:])) for entry in entries)]
        )
        for part, blank in enumerate(empty)
    )
    origin = grid.origin(tile)
    boxes = boxes + np.concatenate([origin, origin], axis=1)
    dropped = np.zeros(len(tile), bool)
    clearance = grid.clearance(boxes, tile)
    return Found(
        boxes, scores, labels.astype(np.int64), tile, index.astype(np.int64), clearance, dropped
    )


def _as_numpy(values: Any) -> Any:
    """Return a tensor's values as an array, on the host."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _like(column: Any, given: Sequence[Any]) -> Any:
    """Return a column as what was given: the first entry's library, type of number and device."""
    if not given:
        return column
    if hasattr(given[0], "detach"):
        import torch

        return torch.from_numpy(np.ascontiguousarray(column)).to(given[0])
    return column.astype(np.asarray(given[0]).dtype)
