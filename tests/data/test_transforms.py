"""Augmentation moves boxes with their pixels: what survives frames its object within half a px."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg.aug_schema import AugConfig
from rfla.data.transforms import Augmentation, Augmented, build_augmentation

PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def painted(
    size: tuple[int, int], boxes: list[tuple[int, int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Black picture with box `i` filled with grey level 255 in an image of its own channel set.

    Xyxy float32.
    """
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image, np.array(boxes, np.float32).reshape(-1, 4)


@st.composite
def pictures(draw: st.DrawFn, imgsz: int):
    """Size and up to 6 boxes of 2 to 12 px, 6 px apart when the long side has become `imgsz`."""
    height, width = draw(st.integers(40, 90)), draw(st.integers(40, 90))
    gap = max(4, -(-6 * max(height, width) // imgsz))
    taken = np.zeros((height, width), bool)
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        w, h = draw(st.integers(2, 12)), draw(st.integers(2, 12))
        x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
        if not taken[y : y + h, x : x + w].any():
            taken[max(y - gap, 0) : y + h + gap, max(x - gap, 0) : x + w + gap] = True
            boxes.append((x, y, x + w, y + h))
    return (height, width), boxes


@st.composite
def cases(draw: st.DrawFn):
    """A picture with its boxes, and an augmentation."""
    imgsz = draw(st.integers(40, 120))
    size, boxes = draw(pictures(imgsz))
    chance = st.sampled_from([0.0, 0.5, 1.0])
    names = ("fliplr", "flipud", "rot90", "zoom")
    settings_ = {name: draw(chance) for name in names} | {
        "scale": draw(st.sampled_from([0.0, 0.4, 1.5]))
    }
    return size, boxes, Augmentation(**settings_, **PLAIN), imgsz, draw(st.integers(0, 10**6))


@st.composite
def mosaics(draw: st.DrawFn):
    """Four pictures, each with its objects in a colour of its own.

    One, anywhere among them, has none.
    """
    size, boxes, augmentation, imgsz, seed = draw(cases())
    empty = draw(st.integers(0, 3))
    sources, colours = [], []
    for number in range(4):
        shape, found = (size, boxes) if number == 0 else draw(pictures(imgsz))
        image, xyxy = painted(shape, [] if number == empty else found)
        colour = (number - (number > empty)) % 3
        image[..., np.arange(3) != colour] = 0
        sources.append((image, xyxy))
        colours += [colour] * len(xyxy)
    return sources, np.array(colours, int), augmentation, imgsz, seed


def edges(profile: np.ndarray, level: float) -> tuple[float, float]:
    """Where a profile of pixel values first and last crosses half of `level`, px, interpolated."""
    over = np.flatnonzero(profile >= level / 2)
    first, last = over[0], over[-1]
    before = profile[first - 1] if first else 0.0
    after = profile[last + 1] if last + 1 < len(profile) else 0.0
    low = (
        first + 0.5 - (profile[first] - level / 2) / max(profile[first] - before, 1e-9)
        if first
        else 0.0
    )
    high = last + 0.5 + (profile[last] - level / 2) / max(profile[last] - after, 1e-9)
    return low, (high if last + 1 < len(profile) else float(len(profile)))


def assert_framed(result: Augmented, colours: np.ndarray) -> None:
    """Every box that is not cut frames its object, in the channel given, to half a pixel.

    No object is left bare.
    """
    height, width = result.image.shape[:2]
    seen = result.image.astype(float)
    for box, cut, colour in zip(result.boxes, result.cut, colours, strict=True):
        assert (
            (box >= 0).all() and box[2] <= width and box[3] <= height and (box[2:] > box[:2]).all()
        )
        x1, y1, x2, y2 = box
        if cut or min(x2 - x1, y2 - y1) < 2:
            continue
        # the object's own patch: no other object is so near
        window = np.s_[
            max(int(y1) - 2, 0) : int(np.ceil(y2)) + 2, max(int(x1) - 2, 0) : int(np.ceil(x2)) + 2
        ]
        patch = seen[..., colour][window]
        left, right = edges(patch.max(0), patch.max())
        top, bottom = edges(patch.max(1), patch.max())
        found = np.array(
            [
                left + window[1].start,
                top + window[0].start,
                right + window[1].start,
                bottom + window[0].start,
            ]
        )
        assert np.abs(found - box).max() <= 0.5, (found, box)
    # every bright pixel belongs to a box: nothing became background while its pixels stayed
    outside = seen.max(axis=2)
    for x1, y1, x2, y2 in result.boxes:
        outside[
            max(int(y1) - 1, 0) : int(np.ceil(y2)) + 1, max(int(x1) - 1, 0) : int(np.ceil(x2)) + 1
        ] = 0
    assert outside.max(initial=0) < 128


@settings(max_examples=100, deadline=None)
@given(cases())
def test_surviving_boxes_frame_their_objects_and_none_vanishes(case):
    size, boxes, augmentation, imgsz, seed = case
    image, xyxy = painted(size, boxes)
    result = augmentation(image, xyxy, imgsz, np.random.default_rng(seed))
    assert max(result.image.shape[:2]) == imgsz
    assert_framed(result, np.zeros(len(result.boxes), int))


@settings(max_examples=100, deadline=None)
@given(mosaics())
def test_the_same_of_a_mosaic_and_nothing_is_shrunk_for_it(case):
    sources, colours, augmentation, imgsz, seed = case
    (image, boxes), *others = sources
    result = augmentation(image, boxes, imgsz, np.random.default_rng(seed), others)
    assert max(result.image.shape[:2]) == imgsz
    assert_framed(result, colours[result.kept])
    scales = np.concatenate(
        [np.full(len(xyxy), imgsz / max(picture.shape)) for picture, xyxy in sources]
    )
    before = np.concatenate([xyxy[:, 2:] - xyxy[:, :2] for _, xyxy in sources])
    after = result.boxes[:, 2:] - result.boxes[:, :2]
    least = (
        0.385 * (before.prod(axis=1) * scales**2)[result.kept]
    )  # aug.min_visible of its own size in training
    assert (after.prod(axis=1) >= least)[~result.cut].all()


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
    image, xyxy = painted(
        (60, 60), [(20, 20, 32, 32), (36, 20, 48, 32), (20, 36, 32, 48), (36, 36, 48, 48)]
    )
    augmentation = Augmentation(fliplr=0, flipud=0, rot90=0, zoom=1.0, scale=3.0, **PLAIN)
    cut = 0
    for seed in range(60):
        result = augmentation(image, xyxy, 60, np.random.default_rng(seed))
        whole = 144 * result.scale[0] * result.scale[1]
        share = np.prod(result.boxes[:, 2:] - result.boxes[:, :2], axis=1) / whole
        assert ((share < 0.399) <= result.cut).all() and (result.cut <= (share < 0.401)).all()
        cut += int(result.cut.sum())
    assert cut > 5


def test_a_mosaic_of_thin_and_single_pixel_images():
    dot = np.zeros((0, 4), np.float32)
    for shape in ((1, 1), (1, 60), (60, 2), (2, 2)):
        picture = np.full((*shape, 3), 9, np.uint8)
        for seed in range(5):
            result = Augmentation()(
                picture, dot, 32, np.random.default_rng(seed), [(picture, dot)] * 3
            )
            assert max(result.image.shape[:2]) == 32 and len(result.boxes) == 0


def test_scale_only_goes_up():
    image, xyxy = painted((60, 60), [(20, 20, 30, 30)])
    for seed in range(40):
        sx, sy = Augmentation(zoom=1.0, scale=0.5, **PLAIN)(
            image, xyxy, 60, np.random.default_rng(seed)
        ).scale
        assert 1.0 <= sx <= 1.55 and 1.0 <= sy <= 1.55


def test_a_mosaic_shows_objects_at_their_own_size_round_one_of_each_image():
    boxes = [(10, 70, 16, 74), (60, 20, 70, 24)]
    sources = [painted((100, 100), boxes) for _ in range(4)]
    augmentation = Augmentation(fliplr=0, flipud=0, rot90=0, zoom=0, **PLAIN)
    origins = set()
    for seed in range(20):
        (image, xyxy), *others = sources
        result = augmentation(image, xyxy, 100, np.random.default_rng(seed), others)
        sides = (result.boxes[:, 2:] - result.boxes[:, :2]).round(3).tolist()
        assert result.scale == (1, 1) and {kept // 2 for kept in result.kept.tolist()} == {
            0,
            1,
            2,
            3,
        }
        assert sum(side in ([6, 4], [10, 4]) for side in sides) >= 2
        assert (result.image == 255).all(axis=2).sum() == np.prod(sides, axis=1).sum()
        origins.add(tuple(result.boxes[0].tolist()))
    assert len(origins) > 10


def test_how_often_a_mosaic_is_made_and_of_what():
    rng = np.random.default_rng(0)
    drawn = [Augmentation(mosaic=0.25).partners(7, rng) for _ in range(400)]
    assert 70 < sum(map(bool, drawn)) < 130 and {len(rows) for rows in drawn} == {0, 3}
    assert {row for rows in drawn for row in rows} == set(range(7))
    assert Augmentation().partners(7, rng) == []


@pytest.mark.parametrize(
    ("closing", "epochs", "expected"),
    [
        (0, 20, 20),
        (0.2, 20, 16),
        (0.2, 12, 10),
        (0.2, 2, 2),
        (1, 20, 19),
        (10, 20, 10),
        (10, 5, -5),
    ],
)
def test_the_last_epochs_have_no_mosaics(closing: float, epochs: int, expected: int) -> None:
    settings = AugConfig(mosaic=1.0, close_mosaic=closing)
    augmentation = build_augmentation(settings, epochs)
    assert augmentation.mosaic_epochs == expected
    rng = np.random.default_rng(0)
    with_mosaics = [bool(augmentation.partners(7, rng, epoch)) for epoch in range(epochs)]
    assert with_mosaics == [epoch < expected for epoch in range(epochs)]


def test_dark_pictures_stay_visible():
    """A fluorescence image of levels 5 to 30: brightness is a factor."""
    image = np.random.default_rng(0).integers(5, 30, (32, 32, 3), np.uint8)
    for seed in range(30):
        result = Augmentation()(
            image, np.zeros((0, 4), np.float32), 32, np.random.default_rng(seed)
        )
        assert 0.6 * image.mean() < result.image.mean() < 1.4 * image.mean()


def test_blur_and_noise_follow_the_seed():
    """Nothing else is drawn, and the pipeline of both is one object with a state."""
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    still = {"fliplr": 0.0, "flipud": 0.0, "rot90": 0.0, "zoom": 0.0}
    augmentation = Augmentation(**still, **PLAIN, noise=1.0, blur=1.0)
    first, again, other = (
        augmentation(image, np.zeros((0, 4), np.float32), 32, np.random.default_rng(seed)).image
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


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


def test_a_spawned_worker_gets_the_same_augmentation():
    image, xyxy = painted((50, 60), [(20, 20, 30, 30)])
    augmentation = Augmentation(zoom=1.0, mosaic=0.5)
    copy = pickle.loads(pickle.dumps(augmentation))
    one, two = (each(image, xyxy, 60, np.random.default_rng(2)) for each in (augmentation, copy))
    assert (
        copy == augmentation
        and np.array_equal(one.image, two.image)
        and np.array_equal(one.boxes, two.boxes)
    )


def test_colour_keeps_greys_grey_and_turns_the_rest():
    """Grey stays grey at any hue and saturation.

    Half the saturation halves the distance from grey.
    """
    grey, red = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), (140, 90, 90), np.uint8)
    none = np.zeros((0, 4), np.float32)
    still = {"fliplr": 0.0, "flipud": 0.0, "rot90": 0.0, "zoom": 0.0}
    changed = []
    for seed in range(20):
        colourful = Augmentation(**still, hsv_h=0.5, hsv_s=1.0, hsv_v=0.0)
        assert np.ptp(colourful(grey, none, 2, np.random.default_rng(seed)).image) <= 1
        changed.append(colourful(red, none, 2, np.random.default_rng(seed)).image[0, 0].tolist())
        faded = Augmentation(**still, hsv_h=0.0, hsv_s=1.0, hsv_v=0.0)(
            red, none, 2, np.random.default_rng(seed)
        ).image
        r, g, b = faded[0, 0].astype(int)
        assert (
            abs(g - b) <= 1
            and r >= g - 1
            and abs(0.299 * r + 0.587 * g + 0.114 * b - 104.95) <= 1.5
        )
    assert {int(np.argmax(colour)) for colour in changed} == {0, 1, 2}


def test_defaults_are_those_of_the_configuration():
    assert build_augmentation(AugConfig(), 12) == Augmentation(mosaic_epochs=12)
