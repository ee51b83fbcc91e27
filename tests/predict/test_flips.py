"""Test-time flips: a detector that does not care gives the same boxes, another one finds more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfla import RFLA
from rfla.predict.flips import FLIPS, Output, flipped, with_flips


def bright_squares(pictures: list[np.ndarray], half: bool = False) -> list[Output]:
    """Report the bright rectangle of each picture; with `half` only where it is on the left."""
    outputs = []
    for picture in pictures:
        y, x = np.nonzero(picture[..., 0] > 100)
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        boxes = torch.tensor([box] if not half or box[2] <= 20 else []).float().reshape(-1, 4)
        count = len(boxes)
        found = {"boxes": boxes, "scores": torch.full((count,), 0.5)}
        outputs.append(found | {"labels": torch.zeros(count, dtype=torch.int64)})
    return outputs


def picture() -> np.ndarray:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[4:9, 25:33] = 200
    return pixels


def test_mirror_images() -> None:
    for flip in FLIPS:
        assert (flipped(flipped(picture(), flip), flip) == picture()).all()
    assert flipped(picture(), (True, False))[4:9, 7:15, 0].min() == 200
    assert flipped(picture(), (False, True))[21:26, 25:33, 0].min() == 200


def test_a_detector_that_does_not_care_gives_the_same_boxes() -> None:
    (output,) = with_flips([picture()], bright_squares, 0.5, 100)
    assert output["boxes"].tolist() == [[25, 4, 33, 9]] and output["scores"].tolist() == [0.5]


def test_what_one_view_finds_is_there() -> None:
    (output,) = with_flips([picture()], lambda views: bright_squares(list(views), True), 0.5, 100)
    assert output["boxes"].tolist() == [[25, 4, 33, 9]]


@pytest.mark.parametrize("cut", [{}, {"slice": 64, "overlap": 16}])
def test_four_times_the_network(weights: Path, cut: dict[str, Any]) -> None:
    """Boxes of a picture and of its mirror image are mirror images of each other."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    settings: dict[str, Any] = {"conf": 0.0, "device": "cpu", "imgsz": 96, "max_det": 20, **cut}
    model = RFLA(weights)
    one = model.predict(pixels, tta=True, **settings)[0].boxes
    other = model.predict(flipped(pixels, (True, False)), tta=True, **settings)[0].boxes
    np.testing.assert_allclose(one.conf, other.conf, atol=1e-5)
    mirrored = np.stack([96 - other.xyxy[:, 2], 96 - other.xyxy[:, 0]], axis=1)
    if not cut:
        np.testing.assert_allclose(np.sort(one.xyxy[:, ::2], 0), np.sort(mirrored, 0), atol=1e-2)
    plain = model.predict(pixels, **settings)[0].boxes
    assert one.conf[0] >= plain.conf[0] - 1e-6
