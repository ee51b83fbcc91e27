"""Augmentation of training images that tiny boxes survive.

Shapes: an image is (H, W, 3) uint8 RGB; G boxes (G, 4) float32 xyxy px.

Zoom, turn and flips move boxes exactly with their pixels. The zoomed crop is the only step that can
cut a box, so the share that stays visible is measured against the whole box. No box disappears
while pixels of it stay: one that is cut too far becomes an ignored region. Blur and noise, which
move nothing, are albumentations'; no other file touches it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.cfg.aug_schema import AugConfig
from rfla.data.images import Image
from rfla.data.resize import resized_shape
from rfla.data.training_boxes import MIN_SIDE

_LONGEST_TURNED = 2.0  # long side / short side up to which a turn is worth its batch's padding
_MIN_SIDE = MIN_SIDE - 1e-3  # px of a cut box; a thousandth is rounding
# By quarter turns.
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
# RGB to grey and two colour axes (NTSC's YIQ): hue is an angle in the last two, saturation a
# length.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Augmented(NamedTuple):
    """What `Augmentation` returns.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (G', 4) float32 xyxy px of `image`: those that are at least partly inside.
        kept: (G',) int64, position of each box among the input's (of a mosaic: those of all images,
            one after another).
        cut: (G',) bool, boxes cut too far to be a target: regions to ignore.
        scale: `(sx, sy)`, px of `image` per px of the (first) input, before turns.
    """

    image: Image
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]
    cut: NDArray[np.bool_]
    scale: tuple[float, float]


class _View(NamedTuple):
    """A window of an image, resized.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        boxes: (G, 4) float32 xyxy px of `image`: the visible part of each box, of no size where
            nothing is visible.
        touched: (G,) bool, whether something of the box is cut off.
        share: (G,) float32, how much of its area is visible.
        scale: `(sx, sy)`, px of `image` per px of the input.
    """

    image: Image
    boxes: NDArray[np.float32]
    touched: NDArray[np.bool_]
    share: NDArray[np.float32]
    scale: tuple[float, float]


class _Turn(NamedTuple):
    """A flip left to right, one upside down, then quarter turns counterclockwise."""

    fliplr: bool
    flipud: bool
    quarters: int

    def pixels(self, image: Image) -> Image:
        """Return an image (H, W, 3), flipped and turned."""
        if self.fliplr or self.flipud:
            code = -1 if self.fliplr and self.flipud else int(self.fliplr)
            image = np.asarray(cv2.flip(image, code), np.uint8)
        if self.quarters:
            image = np.asarray(cv2.rotate(image, _TURNS[self.quarters]), np.uint8)
        return image

    def boxes(self, boxes: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
        """Return where the boxes (G, 4) of an image of (h, w, ...) `shape` lie in it, px."""
        height, width = shape[0], shape[1]
        x1, y1, x2, y2 = boxes.T
        if self.fliplr:
            x1, x2 = width - x2, width - x1
        if self.flipud:
            y1, y2 = height - y2, height - y1
        for _ in range(self.quarters):
            x1, y1, x2, y2 = y1, width - x2, y2, width - x1
            height, width = width, height
        return np.stack([x1, y1, x2, y2], axis=1)


@dataclass
class Augmentation:
    """Resize to the input size with a random zoom, flips, quarter turns and colour.

    Settings as in `AugConfig`; there are mosaics in the first `mosaic_epochs` epochs.
    """

    fliplr: float = 0.5
    flipud: float = 0.5
    rot90: float = 0.5
    zoom: float = 0.5
    scale: float = 0.5
    min_visible: float = 0.4
    mosaic: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.4
    hsv_v: float = 0.3
    blur: float = 0.0
    noise: float = 0.0
    mosaic_epochs: float = math.inf

    def __post_init__(self) -> None:
        self._spoiling = self._spoilers()

    def partners(self, count: int, rng: np.random.Generator, epoch: int = 0) -> list[int]:
        """Rows, of `count`, of three images to make a mosaic with.

        None in the last epochs, and mostly none before (probability `mosaic`).
        """
        if not self.mosaic or epoch >= self.mosaic_epochs or rng.random() >= self.mosaic:
            return []
        return [int(row) for row in rng.integers(count, size=3)]

    def __call__(
        self,
        image: Image,
        boxes: NDArray[np.float32],
        imgsz: int,
        rng: np.random.Generator,
        others: Sequence[tuple[Image, NDArray[np.float32]]] = (),
    ) -> Augmented:
        """Augment one image.

        Args:
            image: (H, W, 3) uint8 RGB, any size.
            boxes: (G, 4) float32 xyxy px, inside the image.
            imgsz: Long side of the result, px.
            rng: The only source of randomness.
            others: Three further images with their boxes: the four become a mosaic.
        """
        room = resized_shape(image.shape[0], image.shape[1], imgsz)
        if others and min(room) > 1:
            view = self._mosaic([(image, boxes), *others], imgsz, room, rng)
        else:
            view = self._window(image, boxes, imgsz, room, rng)
        sides = view.boxes[:, 2:] - view.boxes[:, :2]
        inside = np.flatnonzero((sides > 0).all(axis=1))
        cut = view.touched & ((view.share < self.min_visible) | (sides < _MIN_SIDE).any(axis=1))
        turnable = max(room) <= _LONGEST_TURNED * min(room)
        draws, quarters = rng.random(3), int(rng.integers(4))
        turn = _Turn(
            bool(draws[0] < self.fliplr),
            bool(draws[1] < self.flipud),
            quarters if turnable and draws[2] < self.rot90 else 0,
        )
        moved = turn.boxes(view.boxes[inside], view.image.shape)
        result = turn.pixels(self._recoloured(view.image, rng))
        if self._spoiling is not None:
            self._spoiling.set_random_state(rng, random.Random(int(rng.integers(2**63))))
            result = self._spoiling(image=result)["image"]
        return Augmented(result, moved, inside, cut[inside], view.scale)

    def _window(
        self,
        image: Image,
        boxes: NDArray[np.float32],
        imgsz: int,
        room: tuple[int, int],
        rng: np.random.Generator,
    ) -> _View:
        """Cut a window round one of the boxes and resize it, in one step, to fill `room` (h, w) px.

        The scale is that of the whole image at `imgsz`, or a random zoom of it; an image that is
        smaller than the room at that scale is shown whole.
        """
        shape = image.shape[:2]
        zoom = rng.uniform(1.0, 1.0 + self.scale) if rng.random() < self.zoom else 1.0
        whole = [side * zoom for side in resized_shape(shape[0], shape[1], imgsz)]
        # The window's sides are rounded down, so that no object is shrunk.
        shares = [min(limit / side, 1.0) for side, limit in zip(whole, room, strict=True)]
        window_h, window_w = (
            max(int(length * share + 1e-9), 1) for length, share in zip(shape, shares, strict=True)
        )
        new_h, new_w = (
            min(max(round(side), 1), limit) for side, limit in zip(whole, room, strict=True)
        )
        x1, y1 = _window_origin((shape[0], shape[1]), (window_h, window_w), boxes, rng)
        crop = image[y1 : y1 + window_h, x1 : x1 + window_w]
        same = crop.shape[:2] == (new_h, new_w)
        resized = crop if same else cv2.resize(crop, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        # Boxes go with the pixels; what the window cuts off is measured against the whole box.
        factor = np.array([new_w / window_w, new_h / window_h] * 2, np.float32)
        moved = (boxes - np.array([x1, y1, x1, y1], np.float32)) * factor
        visible = np.clip(moved, 0, np.array([new_w, new_h] * 2, np.float32))
        area = np.maximum((moved[:, 2:] - moved[:, :2]).prod(axis=1), 1e-9)
        return _View(
            np.asarray(resized, np.uint8),
            visible,
            (visible != moved).any(axis=1),
            (visible[:, 2:] - visible[:, :2]).prod(axis=1) / area,
            (float(factor[0]), float(factor[1])),
        )

    def _mosaic(
        self,
        sources: Sequence[tuple[Image, NDArray[np.float32]]],
        imgsz: int,
        room: tuple[int, int],
        rng: np.random.Generator,
    ) -> _View:
        """Put windows of four images round a point near the middle of `room` (h, w) px.

        None of them is shrunk for it. A window that its image cannot fill leaves black.
        """
        y, x = (min(max(round(side * rng.uniform(0.3, 0.7)), 1), side - 1) for side in room)
        canvas = np.zeros((*room, 3), np.uint8)
        views = []
        for number, (image, boxes) in enumerate(sources):
            top, bottom = ((0, y), (y, room[0]))[number // 2]
            left, right = ((0, x), (x, room[1]))[number % 2]
            view = self._window(image, boxes, imgsz, (bottom - top, right - left), rng)
            height, width = view.image.shape[:2]
            canvas[top : top + height, left : left + width] = view.image
            views.append(
                view._replace(boxes=view.boxes + np.array([left, top, left, top], np.float32))
            )
        return _View(
            canvas,
            np.concatenate([view.boxes for view in views]),
            np.concatenate([view.touched for view in views]),
            np.concatenate([view.share for view in views]),
            views[0].scale,
        )

    def _recoloured(self, image: Image, rng: np.random.Generator) -> Image:
        """Turn the hue, scale saturation and brightness, by one 3 x 3 matrix.

        Factors, not offsets: an offset of the size that suits daylight would blacken a fluorescence
        image.
        """
        hue, saturation, brightness = rng.uniform(-1, 1, 3) * (self.hsv_h, self.hsv_s, self.hsv_v)
        if not (hue or saturation or brightness):
            return image
        sine, cosine = np.sin(2 * np.pi * hue), np.cos(2 * np.pi * hue)
        colour = (1 + saturation) * np.array([[cosine, -sine], [sine, cosine]])
        change = np.eye(3)
        change[1:, 1:] = colour
        matrix = (1 + brightness) * np.linalg.inv(_YIQ) @ change @ _YIQ
        return np.asarray(cv2.transform(image, matrix), np.uint8)

    def _spoilers(self) -> Any:
        """Blur and noise by albumentations, or None where neither is asked for."""
        if not (self.blur or self.noise):
            return None
        import albumentations as A

        steps: list[Any] = []
        if self.blur:
            steps.append(A.Blur(blur_limit=(3, 3), p=self.blur))
        if self.noise:
            steps.append(A.GaussNoise(std_range=(0.01, 0.04), p=self.noise))
        return A.Compose(steps)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), astuple(self)  # a spawned worker builds its own pipelines


def build_augmentation(settings: AugConfig, epochs: int) -> Augmentation:
    """The augmentation that the `aug` section of the configuration describes, of so many epochs."""
    closing = settings.close_mosaic
    without = round(closing * epochs if closing < 1 else closing)
    own = settings.model_dump(exclude={"close_mosaic"})
    return Augmentation(**own, mosaic_epochs=epochs - without)


def _window_origin(
    size: tuple[int, int],
    window: tuple[int, int],
    boxes: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Top left corner (x, y) of a window of (h, w) `window` in an image of (h, w) `size`.

    Uniform over the windows that hold the centre of one box, drawn at random; over all windows
    where there is no box.
    """
    corner = []
    box = boxes[int(rng.integers(len(boxes)))] if len(boxes) else None
    for axis, (length, part) in enumerate(((size[1], window[1]), (size[0], window[0]))):
        low, high = 0, length - part
        if box is not None:
            centre = int((box[axis] + box[axis + 2]) / 2)
            low, high = min(max(low, centre - part + 1), high), max(min(high, centre), low)
        corner.append(int(rng.integers(low, high + 1)))
    return corner[0], corner[1]
