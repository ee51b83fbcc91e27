"""Augmentation of training images that tiny boxes survive. The only file that touches albumentations.

Shapes: an image is (H, W, 3) uint8 RGB; G boxes (G, 4) float32 xyxy px.

Zoom, turn and flips move boxes exactly with their pixels. The zoomed crop is the only step that can cut a box, so the
share that stays visible is measured against the whole box (albumentations measures it against what the step before
left). No box disappears while pixels of it stay: one that is cut too far becomes an ignored region.
"""

import os
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.cfg.aug_schema import AugConfig
from rfla.data.images import Image, resized_shape

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the package index for a newer version at import

_LONGEST_TURNED = 2.0  # long side / short side up to which a quarter turn is worth the padding of its batch
_MIN_SIDE = 1.0  # px of a cut box


class Augmented(NamedTuple):
    """What `Augmentation` returns.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (G', 4) float32 xyxy px of `image`: those that are at least partly inside.
        kept: (G',) int64, position of each box among the input's.
        cut: (G',) bool, boxes cut too far to be a target: regions to ignore.
        scale: `(sx, sy)`, px of `image` per px of the input, before turns.
    """

    image: Image
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]
    cut: NDArray[np.bool_]
    scale: tuple[float, float]


@dataclass
class Augmentation:
    """Resize to the input size with a random zoom, flips, quarter turns and colour; settings as in `AugConfig`."""

    fliplr: float = 0.5
    flipud: float = 0.5
    rot90: float = 0.5
    zoom: float = 0.5
    scale: float = 0.5
    min_visible: float = 0.4
    hsv_h: float = 0.015
    hsv_s: float = 0.4
    hsv_v: float = 0.3
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        self._turning = self._compose(self.rot90)
        self._straight = self._compose(0.0)

    def __call__(self, image: Image, boxes: NDArray[np.float32], imgsz: int, rng: np.random.Generator) -> Augmented:
        """Augment one image.

        Args:
            image: (H, W, 3) uint8 RGB, any size.
            boxes: (G, 4) float32 xyxy px, inside the image.
            imgsz: Long side of the result, px.
            rng: The only source of randomness.
        """
        image, boxes, whole, scale = self._zoomed(image, boxes, imgsz, rng)
        height, width = image.shape[:2]
        visible = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        sides = np.maximum(visible[:, 2:] - visible[:, :2], 0)
        inside = np.flatnonzero((sides > 0).all(axis=1))
        share = sides.prod(axis=1)[inside] / np.maximum(whole[inside], 1e-9)
        touched = (visible != boxes).any(axis=1)[inside]
        cut = touched & ((share < self.min_visible) | (sides[inside] < _MIN_SIDE).any(axis=1))
        turnable = max(height, width) <= _LONGEST_TURNED * min(height, width)
        pipeline = self._turning if turnable else self._straight
        pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result = pipeline(image=self._recoloured(image, rng), bboxes=visible[inside], position=inside)
        kept = np.asarray(result["position"], np.int64)
        order = np.searchsorted(inside, kept)  # `inside` ascends
        return Augmented(
            result["image"], np.asarray(result["bboxes"], np.float32).reshape(-1, 4), kept, cut[order], scale
        )

    def _zoomed(
        self, image: Image, boxes: NDArray[np.float32], imgsz: int, rng: np.random.Generator
    ) -> tuple[Image, NDArray[np.float32], NDArray[np.float32], tuple[float, float]]:
        """Cut a window round one of the boxes and resize it, in one interpolation.

        Returns:
            The image, the boxes in its px (not clipped), their whole areas in its px^2, and (sx, sy).
        """
        height, width = image.shape[:2]
        zoom = rng.uniform(1.0, 1.0 + self.scale) if rng.random() < self.zoom else 1.0
        window_h, window_w = max(round(height / zoom), 1), max(round(width / zoom), 1)
        x1, y1 = _window_origin((height, width), (window_h, window_w), boxes, rng)
        new_h, new_w = resized_shape(height, width, imgsz)
        crop = image[y1 : y1 + window_h, x1 : x1 + window_w]
        same = crop.shape[:2] == (new_h, new_w)
        resized = crop if same else cv2.resize(crop, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        factor = np.array([new_w / window_w, new_h / window_h] * 2, np.float32)
        moved = (boxes - np.array([x1, y1, x1, y1], np.float32)) * factor
        whole = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
        return np.asarray(resized, np.uint8), moved, whole, (float(factor[0]), float(factor[1]))

    def _recoloured(self, image: Image, rng: np.random.Generator) -> Image:
        """Turn the hue, scale saturation and brightness: one pass through HSV, where albumentations takes four.

        Factors, not offsets: an offset of the size that suits daylight would blacken a fluorescence image.
        """
        hue, saturation, brightness = rng.uniform(-1, 1, 3) * (self.hsv_h, self.hsv_s, self.hsv_v)
        if not (hue or saturation or brightness):
            return image
        levels = np.arange(256, dtype=np.float64)
        turned = np.stack([(levels + hue * 180) % 180, levels * (1 + saturation), levels * (1 + brightness)], 1)
        table = np.clip(turned + 0.5, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
        table[..., 0] %= 180
        recoloured = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
        return np.asarray(recoloured, np.uint8)

    def _compose(self, rot90: float) -> Any:
        import albumentations as A

        steps: list[Any] = [A.HorizontalFlip(p=self.fliplr), A.VerticalFlip(p=self.flipud), A.RandomRotate90(p=rot90)]
        if self.blur:
            steps.append(A.Blur(blur_limit=(3, 3), p=self.blur))
        if self.noise:
            steps.append(A.GaussNoise(std_range=(0.01, 0.04), p=self.noise))
        # The position is the only label field: label fields travel in float32, and come back as floats from lists.
        parameters = A.BboxParams("pascal_voc", label_fields=["position"], clip=True, filter_invalid_bboxes=False)
        return A.Compose(steps, bbox_params=parameters)


def build_augmentation(settings: AugConfig) -> Augmentation:
    """The augmentation that the `aug` section of the configuration describes."""
    return Augmentation(**settings.model_dump())


def _window_origin(
    size: tuple[int, int], window: tuple[int, int], boxes: NDArray[np.float32], rng: np.random.Generator
) -> tuple[int, int]:
    """Top left corner (x, y) of a window of (h, w) `window` in an image of (h, w) `size`.

    Uniform over the windows that hold the centre of one box, drawn at random; over all windows where there is no box.
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
