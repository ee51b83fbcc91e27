"""The mosaic of an inspection: what it shows of a large image, and what it says of that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfla.data import load_data_spec
from rfla.data.index import load_index
from rfla.tools.inspect.pictures import draw_split


@pytest.mark.parametrize(
    ("size", "shape", "note", "boxes"),
    [
        ((512, 512), (512, 512), "", 3),  # a usual size of tiles: whole
        ((300, 700), (300, 512), "512 x 300 of 700 x 300 px", 2),  # the last box lies outside
    ],
)
def test_a_piece_of_an_image_is_called_one(
    coco: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    shape: tuple[int, int],
    note: str,
    boxes: int,
) -> None:
    drawn: list[tuple[tuple[int, ...], str, int]] = []

    def draw(image: np.ndarray, found: np.ndarray, *_: object, note: str = "", **__: bool) -> Any:
        drawn.append((image.shape[:2], note, len(found)))
        return image

    monkeypatch.setattr("rfla.tools.inspect.pictures.draw_boxes", draw)
    far = size[1] - 12
    root = coco([[(5, 5, 10, 10, 3), (20, 5, 10, 10, 3), (far, 5, 10, 10, 3)]], size=size)
    draw_split(load_index(load_data_spec(str(root)), "train"), "train", tmp_path)
    assert drawn == [(shape, note, boxes)]
