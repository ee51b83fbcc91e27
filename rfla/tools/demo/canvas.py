"""Brushes of the demo: noise, smooth-edged shapes, shadows, and the stamp that paints an object.

Shapes: the picture is (S, S, 3) float32 RGB in 0 to 1; masks are (S, S) float32 coverage in 0 to 1;
points are (N, 2)
    x, y px.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 or float64
Colour = tuple[float, float, float]

LAND, WATER, PAVED, BLOCKED = 0, 1, 2, 3  # what a pixel of the ground is

MOST_OBJECTS = 150

_SHIFT = 4  # binary digits of sub-pixel precision of OpenCV's fixed-point drawing
_FINE = 8  # an object is painted at 8 x 8 samples a pixel


@dataclass
class Painting:
    """A picture in the making, with the boxes of the objects painted so far.

    Attributes:
        rng: Source of randomness.
        size: Side of the picture S, px.
        scale: px of an object per px of its nominal size.
        sun: (2,) px of shadow per px of height, in x and y.
        image: (S, S, 3).
        grain: (S, S), fine noise with standard deviation 1, for every hard surface.
        ground: (S, S) uint8, LAND to BLOCKED.
        taken: (S, S) bool, pixels that belong to an object.
        boxes: xyxy px of every object.
        labels: Class of every object.
    """

    rng: np.random.Generator
    size: int
    scale: float
    sun: Array
    image: Array
    grain: Array
    ground: NDArray[np.uint8]
    taken: NDArray[np.bool_]
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def blank_painting(rng: np.random.Generator, size: int) -> Painting:
    """A scene without anything, under a sun of its own."""
    azimuth, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
    return Painting(
        rng=rng,
        size=size,
        scale=float(rng.uniform(0.75, 1.3)),
        sun=np.array([np.cos(azimuth) * length, np.sin(azimuth) * length], np.float32),
        image=np.zeros((size, size, 3), np.float32),
        grain=fractal(rng, size, (12, 40, 128, 256), 0.85),
        ground=np.zeros((size, size), np.uint8),
        taken=np.zeros((size, size), bool),
    )


def fractal(rng: np.random.Generator, size: int, cells: Sequence[int], fall: float = 0.55) -> Array:
    """Smooth noise (S, S) with mean 0 and standard deviation 1.

    One octave for each number of `cells` across.
    """
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for count in cells:
        coarse = rng.standard_normal((count, count), dtype=np.float32)
        total += weight * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        weight *= fall
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def rotated(
    points: Sequence[tuple[float, float]] | Array,
    angle: float,
    centre: Sequence[float] | Array = (0.0, 0.0),
) -> Array:
    """Points turned by `angle` (radians) about the origin, then moved to `centre`."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]], np.float32)
    return np.asarray(
        np.asarray(points, np.float32) @ turn + np.asarray(centre, np.float32), np.float32
    )


def rectangle(
    length: float, width: float, angle: float, centre: Sequence[float] | Array = (0.0, 0.0)
) -> Array:
    """Corners (4, 2) of a rectangle with its long axis along `angle`."""
    half, side = length / 2, width / 2
    return rotated([(-half, -side), (half, -side), (half, side), (-half, side)], angle, centre)


def disc(diameter: float, centre: Sequence[float] | Array = (0.0, 0.0), corners: int = 24) -> Array:
    """Corners of a circle."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.asarray(
        np.stack([np.cos(turn), np.sin(turn)], 1) * diameter / 2 + np.asarray(centre), np.float32
    )


def polygon_mask(size: int, points: Array) -> Array:
    """Coverage (S, S) of a filled polygon with smooth edges; pixel (0, 0) covers 0 to 1."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [_fixed(points)], 255, cv2.LINE_AA, _SHIFT)
    return np.asarray(mask, np.float32) / 255


def line_mask(size: int, points: Array | Sequence[Array], width: float) -> Array:
    """Coverage (S, S) of a polyline, or of several, `width` px wide."""
    lines = [points] if isinstance(points, np.ndarray) else points
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(
        mask,
        [_fixed(line) for line in lines],
        False,
        255,
        max(round(width), 1),
        cv2.LINE_AA,
        _SHIFT,
    )
    return np.asarray(mask, np.float32) / 255


def fill(
    scene: Painting,
    mask: Array,
    colour: Colour | Array,
    texture: Array | float = 0.0,
    ground: int | None = None,
) -> None:
    """Paint `colour` plus `texture` (S, S) where `mask` covers; set the kind of ground there."""
    window = _window(mask)
    if window is None:
        return
    cover = mask[window][..., None]
    paint = np.asarray(colour, np.float32)
    paint = paint[window] if paint.ndim == 3 else np.broadcast_to(paint, (*cover.shape[:2], 3))
    if not isinstance(texture, float):
        paint = paint + texture[window][..., None]
    scene.image[window] += cover * (paint - scene.image[window])
    if ground is not None:
        scene.ground[window][cover[..., 0] > 0.5] = ground


def darken(scene: Painting, mask: Array, strength: float) -> None:
    """Cast a shadow where `mask` covers; shadows are a little blue."""
    window = _window(mask)
    if window is not None:
        scene.image[window] *= (
            1 - mask[window][..., None] * np.array([1.0, 0.94, 0.84], np.float32) * strength
        )


def cast(scene: Painting, points: Array, height: float, strength: float = 0.5) -> None:
    """Shadow of a block with outline `points`, `height` px high.

    It is the hull of the outline and its shifted copy.
    """
    hull = cv2.convexHull(np.concatenate([points, points + scene.sun * height]).astype(np.float32))[
        :, 0
    ]
    darken(scene, cv2.GaussianBlur(polygon_mask(scene.size, hull), (3, 3), 0.6), strength)


def stamp(
    scene: Painting, parts: Sequence[tuple[Array, Colour]], height: float, label: int | None
) -> bool:
    """Paint an object from coloured polygons, and note the box of the pixels that they cover.

    Args:
        scene: Where to.
        parts: Polygons in px of the picture.
        height: Of the object above ground, px, for its shadow.
        label: Class; None paints clutter without a box.

    Returns:
        False, with nothing painted, where another object is, less than half is inside the picture,
        or the scene is full.
    """
    if label is not None and len(scene.labels) >= MOST_OBJECTS:
        return False
    corners = np.concatenate([points for points, _ in parts])
    x0, y0 = (int(value) for value in np.floor(corners.min(0)) - 1)
    width, tall = (int(value) for value in np.ceil(corners.max(0)) + 1 - (x0, y0))
    cover, colours = _samples(parts, (x0, y0), width, tall)
    left, top, right, bottom = (
        max(x0, 0),
        max(y0, 0),
        min(x0 + width, scene.size),
        min(y0 + tall, scene.size),
    )
    inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    outer = np.s_[top:bottom, left:right]
    fine = cover[
        inner[0].start * _FINE : inner[0].stop * _FINE,
        inner[1].start * _FINE : inner[1].stop * _FINE,
    ]
    if right <= left or bottom <= top or fine.sum() < 0.5 * cover.sum() or not fine.any():
        return False
    alpha = _shrunk(cover.astype(np.float32), width, tall)[inner]
    if (scene.taken[outer] & (alpha > 0.02)).any():
        return False
    _object_shadow(scene, cover, (x0, y0), height)
    paint = (
        _shrunk(colours * cover[..., None], width, tall)[inner] / np.maximum(alpha, 1e-4)[..., None]
    )
    scene.image[outer] += alpha[..., None] * (paint - scene.image[outer])
    scene.taken[outer] |= alpha > 0.02
    if label is not None:
        ys, xs = np.flatnonzero(fine.any(1)), np.flatnonzero(fine.any(0))
        x1, y1 = left + xs[0] / _FINE, top + ys[0] / _FINE
        scene.boxes.append((x1, y1, left + (xs[-1] + 1) / _FINE, top + (ys[-1] + 1) / _FINE))
        scene.labels.append(label)
    return True


def _samples(
    parts: Sequence[tuple[Array, Colour]], origin: tuple[int, int], width: int, tall: int
) -> tuple[NDArray[np.uint8], Array]:
    cover = np.zeros((tall * _FINE, width * _FINE), np.uint8)
    colours = np.zeros((*cover.shape, 3), np.float32)
    for points, colour in parts:
        # A sample is at the middle of its cell, OpenCV's integers are middles of pixels.
        corners = np.round((points - np.asarray(origin, np.float32)) * _FINE - 0.5).astype(np.int32)
        cv2.fillPoly(cover, [corners], 1)
        cv2.fillPoly(colours, [corners], colour)
    return cover, colours


def _shrunk(fine: Array, width: int, tall: int) -> Array:
    return np.asarray(cv2.resize(fine, (width, tall), interpolation=cv2.INTER_AREA), np.float32)


def _object_shadow(
    scene: Painting, cover: NDArray[np.uint8], origin: tuple[int, int], height: float
) -> None:
    """Shadow of an object: its outline, smeared along the sun by its height."""
    reach = scene.sun * height
    pad = int(np.abs(reach).max()) + 3
    tall, width = cover.shape[0] // _FINE + 2 * pad, cover.shape[1] // _FINE + 2 * pad
    small = np.pad(_shrunk(cover.astype(np.float32), width - 2 * pad, tall - 2 * pad), pad)
    shadow = np.zeros_like(small)
    for share in np.linspace(0.2, 1.0, max(2, round(float(np.abs(reach).max())) + 1)):
        shift = np.array([[1, 0, reach[0] * share], [0, 1, reach[1] * share]], np.float32)
        shadow = np.maximum(shadow, cv2.warpAffine(small, shift, (width, tall)))
    x0, y0 = origin[0] - pad, origin[1] - pad
    left, top, right, bottom = (
        max(x0, 0),
        max(y0, 0),
        min(x0 + width, scene.size),
        min(y0 + tall, scene.size),
    )
    outer = np.s_[top:bottom, left:right]
    dark = (
        shadow[top - y0 : bottom - y0, left - x0 : right - x0] * ~scene.taken[outer]
    )  # not on its neighbours
    scene.image[outer] *= 1 - dark[..., None] * np.array([0.55, 0.52, 0.46], np.float32)


def _window(mask: Array) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of a mask, or None for an empty one."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] if len(ys) else None


def _fixed(points: Array) -> NDArray[np.int32]:
    return np.round((np.asarray(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)
