"""Pictures of an inspection: a mosaic of samples with their boxes, and histograms."""

from pathlib import Path

import numpy as np

from rfla.data.annotations import Annotations, objects_per_image
from rfla.data.images import write_image
from rfla.data.record import is_object
from rfla.errors import DataError
from rfla.pictures.boxes import draw_boxes, tile_pictures
from rfla.pictures.curves import plot_labels

_SAMPLES = 12
_LONGEST = 512  # px: of a larger image a window is shown, so that objects of a few px can be seen


def draw_split(index: Annotations, split: str, folder: Path) -> list[Path]:
    """Write `mosaic_{split}.jpg` and `labels_{split}.png`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    boxed = np.flatnonzero(np.diff(index.box_start))
    rows = boxed if len(boxed) else np.arange(len(index))
    tiles = []
    for row in rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLES).round().astype(int))]:
        try:
            tiles.append(_tile(index, int(row)))
        except DataError:
            continue  # the report names it
    written = []
    if tiles:
        written.append(folder / f"mosaic_{split}.jpg")
        write_image(written[-1], np.asarray(tile_pictures(tiles, columns=4), np.uint8), quality=88)
    objects = is_object(index)
    if objects.any():
        written.append(folder / f"labels_{split}.png")
        boxes, labels = index.boxes[objects], index.labels[objects]
        plot_labels(written[-1], boxes, labels, objects_per_image(index), index.names)
    return written


def _tile(index: Annotations, row: int) -> np.ndarray:
    image = index.picture(row)
    rows = index.rows_of(row)
    boxes, labels = index.boxes[rows], index.labels[rows].copy()
    labels[~is_object(index)[rows]] = -1
    sides, note = np.array(image.shape[1::-1]), ""
    if sides.max() > _LONGEST:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        middle = centres.mean(axis=0) if len(boxes) else sides / 2
        if len(
            boxes
        ):  # the box that is nearest to the middle of all: between clusters there may be nothing
            middle = centres[np.argmin(((centres - middle) ** 2).sum(axis=1))]
        corner = np.clip(middle - _LONGEST / 2, 0, np.maximum(sides - _LONGEST, 0)).astype(int)
        image = image[corner[1] : corner[1] + _LONGEST, corner[0] : corner[0] + _LONGEST]
        note = f"{image.shape[1]} x {image.shape[0]} of {sides[0]} x {sides[1]} px"
        boxes = boxes - np.tile(corner, 2).astype(np.float32)
        inside = ((boxes[:, 2:] > 0) & (boxes[:, :2] < _LONGEST)).all(axis=1)
        boxes, labels = boxes[inside], labels[inside]
    return draw_boxes(image, boxes, labels, index.names, show_labels=False, note=note)
