"""Augmentation moves boxes with their pixels: whatever survives still frames its painted object within half a pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg.aug_schema import AugConfig
from rfla.data.transforms import Augmentation, build_augmentation

PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def painted(size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Black picture with box `i` filled with grey level 255 in an image of its own channel set; xyxy float32."""
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image, np.array(boxes, np.float32).reshape(-1, 4)


@st.composite
def cases(draw: st.DrawFn):
    """A picture with up to 6 boxes of 2 to 12 px, and an augmentation; 6 px apart in what the augmentation makes."""
    height, width = draw(st.integers(40, 90)), draw(st.integers(40, 90))
    imgsz = draw(st.integers(40, 120))
    gap = max(4, -(-6 * max(height, width) // imgsz))
    taken = np.zeros((height, width), bool)
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        w, h = draw(st.integers(2, 12)), draw(st.integers(2, 12))
        x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
        if not taken[y : y + h, x : x + w].any():
            taken[max(y - gap, 0) : y + h + gap, max(x - gap, 0) : x + w + gap] = True
            boxes.append((x, y, x + w, y + h))
    chance = st.sampled_from([0.0, 0.5, 1.0])
    names = ("fliplr", "flipud", "rot90", "zoom")
    settings_ = {name: draw(chance) for name in names} | {"scale": draw(st.sampled_from([0.0, 0.4, 1.5]))}
    return (
        (height, width),
        boxes,
        Augmentation(**settings_, **PLAIN),
        imgsz,
        draw(st.integers(0, 10**6)),
    )


def edges(profile: np.ndarray, level: float) -> tuple[float, float]:
    """Where a profile of pixel values first and last crosses half of `level`, px, by linear interpolation."""
    over = np.flatnonzero(profile >= level / 2)
    first, last = over[0], over[-1]
    before = profile[first - 1] if first else 0.0
    after = profile[last + 1] if last + 1 < len(profile) else 0.0
    low = first + 0.5 - (profile[first] - level / 2) / max(profile[first] - before, 1e-9) if first else 0.0
    high = last + 0.5 + (profile[last] - level / 2) / max(profile[last] - after, 1e-9)
    return low, (high if last + 1 < len(profile) else float(len(profile)))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_surviving_boxes_frame_their_objects_and_none_vanishes(case):
    size, boxes, augmentation, imgsz, seed = case
    image, xyxy = painted(size, boxes)
    result = augmentation(image, xyxy, imgsz, np.random.default_rng(seed))
    assert max(result.image.shape[:2]) == imgsz
    height, width = result.image.shape[:2]
    seen = result.image[..., 0].astype(float)
    for box, cut in zip(result.boxes, result.cut, strict=True):
        assert (box >= 0).all() and box[2] <= width and box[3] <= height and (box[2:] > box[:2]).all()
        x1, y1, x2, y2 = box
        if cut or min(x2 - x1, y2 - y1) < 2:
            continue
        # the object's own patch: no other object is so near
        window = np.s_[max(int(y1) - 2, 0) : int(np.ceil(y2)) + 2, max(int(x1) - 2, 0) : int(np.ceil(x2)) + 2]
        patch = seen[window]
        left, right = edges(patch.max(0), patch.max())
        top, bottom = edges(patch.max(1), patch.max())
        found = np.array(
            [left + window[1].start, top + window[0].start, right + window[1].start, bottom + window[0].start]
        )
        assert np.abs(found - box).max() <= 0.5, (found, box)
    # every bright pixel belongs to a box: nothing became background while its pixels stayed
    outside = seen.copy()
    for x1, y1, x2, y2 in result.boxes:
        outside[max(int(y1) - 1, 0) : int(np.ceil(y2)) + 1, max(int(x1) - 1, 0) : int(np.ceil(x2)) + 1] = 0
    assert outside.max(initial=0) < 128


@settings(max_examples=20, deadline=None)
@given(cases())
def test_same_seed_same_sample(case):
    size, boxes, augmentation, imgsz, seed = case
    image, xyxy = painted(size, boxes)
    first = augmentation(image, xyxy, imgsz, np.random.default_rng(seed))
    again = augmentation(image, xyxy, imgsz, np.random.default_rng(seed))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("fliplr", [6, 2, 8, 5]),  # x' = 10 - x
        ("flipud", [2, 5, 4, 8]),
        ("rot90", None),  # a quarter turn, or none, or a half: three of four draws move it
    ],
)
def test_one_step_at_a_time(key: str, expected: list[int] | None):
    off = {name: 0.0 for name in ("fliplr", "flipud", "rot90", "zoom")}
    image, xyxy = painted((10, 10), [(2, 2, 4, 5)])
    result = Augmentation(**(off | {key: 1.0}), **PLAIN)(image, xyxy, 10, np.random.default_rng(1))
    if expected:
        assert result.boxes.tolist() == [expected]
    x1, y1, x2, y2 = result.boxes[0].astype(int)
    assert (result.image[y1:y2, x1:x2] == 255).all() and (result.image == 255).sum() == 18


def test_a_box_cut_too_far_becomes_an_ignored_region():
    """Two boxes at opposite ends under a zoom of up to 4: sooner or later one is cut below 40 %."""
    image, xyxy = painted((60, 60), [(20, 20, 32, 32), (36, 20, 48, 32), (20, 36, 32, 48), (36, 36, 48, 48)])
    augmentation = Augmentation(fliplr=0, flipud=0, rot90=0, zoom=1.0, scale=3.0, **PLAIN)
    cut = 0
    for seed in range(60):
        result = augmentation(image, xyxy, 60, np.random.default_rng(seed))
        whole = 144 * result.scale[0] * result.scale[1]
        share = np.prod(result.boxes[:, 2:] - result.boxes[:, :2], axis=1) / whole
        assert ((share < 0.399) <= result.cut).all() and (result.cut <= (share < 0.401)).all()
        cut += int(result.cut.sum())
    assert cut > 5


def test_scale_only_goes_up():
    image, xyxy = painted((60, 60), [(20, 20, 30, 30)])
    for seed in range(40):
        sx, sy = Augmentation(zoom=1.0, scale=0.5, **PLAIN)(image, xyxy, 60, np.random.default_rng(seed)).scale
        assert 1.0 <= sx <= 1.55 and 1.0 <= sy <= 1.55


def test_dark_pictures_stay_visible():
    """A fluorescence image of levels 5 to 30: brightness is a factor."""
    image = np.random.default_rng(0).integers(5, 30, (32, 32, 3), np.uint8)
    for seed in range(30):
        result = Augmentation()(image, np.zeros((0, 4), np.float32), 32, np.random.default_rng(seed))
        assert 0.6 * image.mean() < result.image.mean() < 1.4 * image.mean()


def test_long_images_are_not_turned():
    image, xyxy = painted((20, 90), [(2, 2, 8, 8)])
    for seed in range(20):
        result = Augmentation(rot90=1.0, **PLAIN)(image, xyxy, 90, np.random.default_rng(seed))
        assert result.image.shape == (20, 90, 3)


def test_many_boxes_and_large_labels_keep_their_order():
    boxes = [(x, y, x + 3, y + 3) for x in range(0, 400, 8) for y in range(0, 400, 8)]
    image, xyxy = painted((400, 400), boxes)
    result = Augmentation(zoom=0, **PLAIN)(image, xyxy, 400, np.random.default_rng(3))
    assert sorted(result.kept.tolist()) == list(range(len(boxes))) and result.kept.dtype == np.int64


def test_defaults_are_those_of_the_configuration():
    assert build_augmentation(AugConfig()) == Augmentation()
