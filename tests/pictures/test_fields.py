"""The picture of receptive fields, of any number of levels, with boxes and without."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rfla.pictures.fields import FieldPanel, Scene, draw_fields

PANEL = FieldPanel(
    name="P2",
    stride=4,
    influence=np.pad(np.full((8, 8), 1 / 64), 28),
    theoretical=(-17.0, -17.0, 18.0, 18.0),
    sigma=(3.0, 3.0),
    centre=(0.0, 0.0),
    effective=17.5,
    prior=2.0,
    serves="1 to 30 px",
)
SCENE = Scene(
    image=np.full((64, 96, 3), 90, np.uint8),
    boxes=np.array([[8.0, 8, 16, 16], [40, 8, 80, 40]]),
    levels=np.array([0, -1]),
    sizes=np.array([8.0, 30, 31]),
    size_levels=np.array([0, -1, 1]),
)
BLIND = replace(
    PANEL,
    influence=np.zeros((64, 64)),
    theoretical=None,
    sigma=(math.nan, math.nan),
    centre=(math.nan, math.nan),
    serves="no box",
)


@pytest.mark.parametrize("levels", [1, 6])
def test_with_boxes_and_without(tmp_path: Path, levels: int) -> None:
    panels = [PANEL, *[BLIND] * (levels - 1)]
    heights = []
    for name, scene in (("fields", None), ("boxes", SCENE)):
        draw_fields(tmp_path / f"{name}.png", "a $title$ of any length " * 20, panels, scene)
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture.shape[1] >= 1100 and picture.std() > 5
        heights.append(picture.shape[0])
    assert heights[1] > 2 * heights[0]


def test_no_boxes_at_all(tmp_path: Path) -> None:
    nothing = np.zeros(0)
    scene = replace(
        SCENE,
        boxes=np.zeros((0, 4)),
        levels=nothing,
        sizes=nothing,
        size_levels=nothing,
    )
    draw_fields(tmp_path / "fields.png", "nothing", [PANEL], scene)
    assert (tmp_path / "fields.png").stat().st_size > 10_000
