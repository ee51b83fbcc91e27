"""The detections of all tiles of a scene in one call: arrays or tensors in, the same out."""

from collections.abc import Sequence, Set
from typing import Any, get_args

import numpy as np

from rfla.errors import ConfigError, shorten
from rfla.names import MergeMetric, MergeRule
from rfla.predict.columns import Found
from rfla.predict.seams import SeamMerger
from rfla.predict.tiles import Integers, TileGrid

_FLOATS = ("bfloat16", "float16", "float32", "float64")  # each holds those before it, as boxes do
RULES, METRICS = get_args(MergeRule), get_args(MergeMetric)


def merge_tiles(
    found: Sequence[tuple[Any, Any, Any]],
    tiles: Any,
    shape: tuple[int, int],
    merge: MergeRule = "seam",
    metric: MergeMetric = "iou",
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
        Boxes of half precision come back as float32: it has no place for px of a scene.

    Raises:
        ConfigError: An unknown rule, tiles that form no grid, not one entry for each tile, or one
            whose boxes, scores and labels do not fit together or are no finite numbers.
    """
    if merge not in RULES or metric not in METRICS:
        raise ConfigError(
            f"merge={merge}, metric={metric}: merge is one of {', '.join(RULES)}, metric one of "
            f"{', '.join(METRICS)}"
        )
    if not isinstance(classes, bool | np.bool_):
        raise ConfigError(f"classes={shorten(classes)}: must be True or False")
    merger = TileMerger(tiles, shape, merge, metric, classes)
    if len(found) != len(merger.order):
        raise ConfigError(f"{len(found)} lists of boxes for {len(merger.order)} tiles")
    for number in merger.order.tolist():
        merger.add(*_arrays(found[number], number))
    merged = merger.merged()
    columns = (merged.boxes, merged.scores, merged.labels)
    boxes, scores, labels = (
        _like(column, [one[part] for one in found]) for part, column in enumerate(columns)
    )
    return boxes, scores, labels


class TileMerger:
    """Takes the detections of one tile after the other, row by row of tiles; see `merge_tiles`.

    What is settled is kept; beside it memory holds one row of tiles and the seam below it.

    Args:
        tiles: (M, 4) xyxy px of the scene, in any order.
        shape: Height and width of the scene, px.
        merge: As in `merge_tiles`.
        metric: As in `merge_tiles`.
        classes: As in `merge_tiles`.

    Attributes:
        order: (M,) the order in which the tiles are to come.
    """

    def __init__(
        self,
        tiles: Any,
        shape: tuple[int, int],
        merge: MergeRule = "seam",
        metric: MergeMetric = "iou",
        classes: bool = False,
    ):
        self._grid = TileGrid(tiles, shape)
        self._merger = SeamMerger(self._grid, merge, metric, classes)
        self.order = np.argsort(self._grid.rank, kind="stable")
        self._ranks = self._grid.rank[self.order]
        self._rows, _ = self._grid.row_column(self._ranks)
        self._begin = 0  # of the row that is being filled
        self._entries: list[tuple[Any, Any, Any]] = []
        self._settled: list[Found] = []

    def add(self, boxes: Any, scores: Any, labels: Any) -> None:
        """Take the next tile: boxes (n, 4) px of the tile, scores (n,), labels (n,)."""
        self._entries.append((boxes, scores, labels))
        end = self._begin + len(self._entries)
        row = self._rows[end - 1]
        if end == len(self._rows) or self._rows[end] != row:
            found = in_scene(self._entries, self._ranks[self._begin : end], self._grid)
            self._settled.append(self._merger.add(int(row), found))
            self._begin, self._entries = end, []

    def merged(self) -> Found:
        """Return all boxes in the order of tiles, once the last tile was added."""
        nothing = in_scene([], np.zeros(0, np.int64), self._grid)
        merged = Found.joined([nothing, *self._settled])
        return merged.take(np.lexsort((merged.index, merged.tile)))


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


def _arrays(entry: tuple[Any, Any, Any], number: int) -> tuple[Any, Any, Any]:
    """Return boxes, scores and labels of one tile as arrays.

    Raises:
        ConfigError: They are not as many of each, or boxes have not four numbers.
    """
    try:
        boxes, scores, labels = (_as_numpy(part) for part in entry)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tile {number}: not boxes, scores, labels ({error})") from None
    count = len(scores) if scores.ndim == 1 else -1
    if labels.shape != (count,) or (boxes.shape != (count, 4) and (count or boxes.size)):
        shapes = ", ".join(str(part.shape) for part in (boxes, scores, labels))
        raise ConfigError(
            f"tile {number}: boxes (n, 4), scores (n,) and labels (n,) are expected, not {shapes}"
        )
    for what, part in (("boxes", boxes), ("scores", scores), ("labels", labels)):
        if part.dtype.kind not in "iufb" or not np.isfinite(part).all():
            raise ConfigError(f"tile {number}: {what} that are not all finite numbers")
    return boxes, scores, labels


def _as_numpy(values: Any) -> Any:
    """Return a tensor's values as an array, on the host."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def _like(column: Any, given: Sequence[Any]) -> Any:
    """Return a column as what was given: the first entry's library and device.

    Its type of number is one that holds those of all entries that have values.
    """
    if not given:
        return column
    too_short = column.ndim == 2 and len(given) > 1  # half precision, for px of a scene
    kind = _common_kind({_kind(one) for one in given if len(one)} or {_kind(given[0])})
    if too_short and kind in ("bfloat16", "float16"):
        kind = "float32"
    if hasattr(given[0], "detach"):
        import torch

        values = torch.from_numpy(np.ascontiguousarray(column))
        return values.to(given[0].device, getattr(torch, kind))
    return column.astype("float32" if kind == "bfloat16" else kind)


def _kind(values: Any) -> str:
    """Return the name of the type of number of an array, a tensor or a list."""
    if hasattr(values, "detach"):
        return str(values.dtype).removeprefix("torch.")
    return np.asarray(values).dtype.name


def _common_kind(kinds: Set[str]) -> str:
    """Return the type that holds numbers of all these types."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return next((kind for kind in reversed(_FLOATS) if kind in kinds), "int64")
