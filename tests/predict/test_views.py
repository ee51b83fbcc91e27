"""Test-time views: a detector that does not care gives the same boxes, another one finds more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfla import RFLA
from rfla.engine.inference import Inference
from rfla.predict.views import FLIPS, OTHER_SIZES, PLAIN, VIEWS, Output, View, flipped
from rfla.predict.views import through_views as through


def bright_squares(pictures: Sequence[np.ndarray], scale: float = 1.0) -> list[Output]:
    """Report the bright rectangle of each picture."""
    outputs = []
    for picture in pictures:
        y, x = np.nonzero(picture[..., 0] > 100)
        boxes = torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]]).float()
        found = {"boxes": boxes, "scores": torch.full((1,), 0.5)}
        outputs.append(found | {"labels": torch.zeros(1, dtype=torch.int64)})
    return outputs


def only_where(seen: bool) -> list[Output]:
    box = torch.tensor([[25.0, 4, 33, 9]])[: int(seen)]
    count = len(box)
    scores, labels = torch.full((count,), 0.5), torch.zeros(count, dtype=torch.int64)
    return [{"boxes": box, "scores": scores, "labels": labels}]


def picture() -> np.ndarray:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[4:9, 25:33] = 200
    return pixels


def test_mirror_images() -> None:
    for view in FLIPS:
        assert (flipped(flipped(picture(), view), view) == picture()).all()
    assert flipped(picture(), View(left_right=True))[4:9, 7:15, 0].min() == 200
    assert flipped(picture(), View(up_down=True))[21:26, 25:33, 0].min() == 200


@pytest.mark.parametrize("name", VIEWS)
def test_a_detector_that_does_not_care_gives_the_same_boxes(name: Any) -> None:
    (output,) = through([picture()], bright_squares, VIEWS[name], 0.5, 100)
    assert output["boxes"].tolist() == [[25, 4, 33, 9]] and output["scores"].tolist() == [0.5]


def test_what_one_view_finds_is_there() -> None:
    """Seen in the left half alone, or only where the picture is enlarged."""

    def on_the_left(views: Sequence[np.ndarray], scale: float) -> list[Output]:
        (output,) = bright_squares(views)
        return [{key: value[output["boxes"][:, 2] <= 20] for key, value in output.items()}]

    def if_enlarged(views: Sequence[np.ndarray], scale: float) -> list[Output]:
        return only_where(scale > 1)

    counts = {
        detector.__name__: [
            len(through([picture()], detector, views, 0.5, 100)[0]["boxes"])
            for views in (PLAIN, FLIPS, PLAIN + OTHER_SIZES)
        ]
        for detector in (on_the_left, if_enlarged)
    }
    assert counts == {"on_the_left": [0, 1, 0], "if_enlarged": [0, 0, 1]}


@pytest.mark.parametrize("cut", [{}, {"slice": 64, "overlap": 16}])
def test_four_times_the_network(weights: Path, cut: dict[str, Any]) -> None:
    """Boxes of a picture and of its mirror image are mirror images of each other."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    settings: dict[str, Any] = {"conf": 0.0, "device": "cpu", "imgsz": 96, "max_det": 20, **cut}
    model = RFLA(weights)
    one = model.predict(pixels, tta="flips", **settings)[0].boxes
    mirrored_pixels = flipped(pixels, View(left_right=True))
    other = model.predict(mirrored_pixels, tta="flips", **settings)[0].boxes
    np.testing.assert_allclose(one.conf, other.conf, atol=1e-5)
    mirrored = np.stack([96 - other.xyxy[:, 2], 96 - other.xyxy[:, 0]], axis=1)
    if not cut:
        np.testing.assert_allclose(np.sort(one.xyxy[:, ::2], 0), np.sort(mirrored, 0), atol=1e-2)
    plain = model.predict(pixels, **settings)[0].boxes
    assert one.conf[0] >= plain.conf[0] - 1e-6


@pytest.mark.parametrize(
    ("tta", "sides"),
    [
        (False, [64]),
        ("flips", [64] * 4),
        ("scales", [64, 51, 80]),  # 0.8 * 64 = 51.2, 1.25 * 64 = 80
        (True, [64] * 4 + [51, 80]),
    ],
)
@pytest.mark.parametrize("cut", [{}, {"slice": 64, "overlap": 16}])
def test_sizes_that_the_network_sees(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tta: Any, sides: list[int], cut: dict[str, Any]
) -> None:
    """An image of 64 x 128 px whole, at half its size, and in three slices of 64 px."""
    seen: list[int] = []
    original = Inference.__call__

    def watched(self: Inference, images: Any, image_sizes: Any, *rest: Any) -> Any:
        seen.extend(max(size) for size in image_sizes)
        return original(self, images, image_sizes, *rest)

    monkeypatch.setattr(Inference, "__call__", watched)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
    settings: dict[str, Any] = {"conf": 0.0, "device": "cpu", "imgsz": 64, "max_det": 5, **cut}
    (result,) = RFLA(weights).predict(pixels, tta=tta, **settings)
    assert sorted(seen) == sorted(sides * (3 if cut else 1))
    assert len(result) and (result.boxes.xyxy <= [128, 64, 128, 64]).all()


def test_views_of_a_batch_do_not_depend_on_it(weights: Path) -> None:
    """Heights of 40 and 64 px are padded alike, to 64; at 0.8 they are 32 and 51, padded apart."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (side, 64, 3), np.uint8) for side in (40, 64)]
    settings: dict[str, Any] = {"conf": 0.0, "device": "cpu", "imgsz": 64, "max_det": 30}
    model = RFLA(weights)
    together = model.predict(pictures, tta="scales", batch=2, **settings)
    for one, both in zip(pictures, together, strict=True):
        (alone,) = model.predict(one, tta="scales", **settings)
        np.testing.assert_allclose(alone.boxes.xyxy, both.boxes.xyxy, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1)])
def test_pictures_of_one_row_or_column(weights: Path, shape: tuple[int, int]) -> None:
    """Numpy calls their mirror images contiguous, which torch does not take.

    What lies in their padding is no detection.
    """
    picture = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    how: dict[str, Any] = {"tta": True, "slice": "auto", "imgsz": 64, "conf": 0.0, "device": "cpu"}
    (found,) = RFLA(weights).predict(picture, **how)
    corners = found.boxes.xyxy.reshape(-1, 2)
    assert ((corners >= 0) & (corners <= [shape[1], shape[0]])).all()
    assert (found.boxes.xyxy[:, :2] < [shape[1], shape[0]]).all()
