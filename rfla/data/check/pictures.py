"""Pictures of an inspection: a mosaic of samples with their boxes, and histograms."""

from pathlib import Path

import numpy as np

from rfla.data.images import read_image, write_image
from rfla.data.index import BoxIndex
from rfla.errors import DataError
from rfla.pictures.boxes import draw_boxes, tile_pictures
from rfla.pictures.curves import plot_labels

_SAMPLES = 12
_LONGEST = 900  # px: a larger image is shown by a window round its boxes


def draw_split(index: BoxIndex, split: str, folder: Path) -> list[Path]:
    """Write `mosaic_{split}.jpg` and `labels_{split}.png`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = []
    for row in np.unique(np.linspace(0, len(index) - 1, _SAMPLES).round().astype(int)):
        try:
            tiles.append(_tile(index, int(row)))
        except DataError:
            continue  # the report names it
    written = []
    if tiles:
        written.append(folder / f"mosaic_{split}.jpg")
        write_image(written[-1], np.asarray(tile_pictures(tiles, columns=4), np.uint8), quality=88)
    real = ~(index.ignore | index.crowd)
    if real.any():
        written.append(folder / f"labels_{split}.png")
        plot_labels(written[-1], index.boxes[real], index.labels[real], np.diff(index.box_start), list(index.names))
    return written


def _tile(index: BoxIndex, row: int) -> np.ndarray:
    image = read_image(str(index.paths[row]))
    rows = index.rows_of(row)
    boxes, labels = index.boxes[rows], index.labels[rows]
    shown = labels >= 0
    boxes, labels = boxes[shown], labels[shown]
    height, width = image.shape[:2]
    if max(height, width) > _LONGEST:
        centre = (boxes[:, :2] + boxes[:, 2:]).mean(axis=0) / 2 if len(boxes) else np.array([width, height]) / 2
        left, top = np.clip(centre - _LONGEST / 2, 0, np.maximum([width - _LONGEST, height - _LONGEST], 0)).astype(int)
        image = image[top : top + _LONGEST, left : left + _LONGEST]
        boxes = boxes - np.array([left, top, left, top], np.float32)
        inside = ((boxes[:, 2:] > 0) & (boxes[:, :2] < _LONGEST)).all(axis=1)
        boxes, labels = boxes[inside], labels[inside]
    return draw_boxes(image, boxes, labels, index.names, show_labels=False)
