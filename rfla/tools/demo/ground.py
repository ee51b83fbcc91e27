"""The ground of the demo, before any object stands on it: fields, water, streets, roofs, trees."""

from dataclasses import dataclass

import numpy as np

from rfla.tools.demo.canvas import (
    BLOCKED,
    LAND,
    PAVED,
    WATER,
    Array,
    Colour,
    Painting,
    cast,
    fill,
    fractal,
    line_mask,
    polygon_mask,
    rectangle,
    rotated,
    stamp,
)
from rfla.tools.demo.objects import tree

_OCTAVES = (4, 9, 20, 48, 110, 256)

GRASS: tuple[Colour, ...] = ((0.33, 0.38, 0.21), (0.40, 0.42, 0.25), (0.28, 0.35, 0.20))
CROPS: tuple[Colour, ...] = (
    *(
        (0.45, 0.45, 0.24),
        (0.58, 0.52, 0.33),
        (0.34, 0.41, 0.20),
        (0.50, 0.40, 0.29),
        (0.62, 0.57, 0.40),
    ),
    *((0.26, 0.33, 0.17), (0.44, 0.36, 0.26), (0.53, 0.50, 0.27)),
)
DRY: tuple[Colour, ...] = ((0.60, 0.52, 0.40), (0.66, 0.59, 0.47), (0.53, 0.47, 0.38))
SAND: tuple[Colour, ...] = ((0.80, 0.73, 0.58), (0.76, 0.70, 0.58))
SEA: tuple[Colour, ...] = (
    (0.09, 0.20, 0.27),
    (0.12, 0.26, 0.29),
    (0.07, 0.15, 0.21),
    (0.20, 0.29, 0.27),
)
ROOFS: tuple[Colour, ...] = (
    *((0.52, 0.29, 0.22), (0.60, 0.37, 0.28), (0.48, 0.47, 0.46), (0.66, 0.65, 0.62)),
    *((0.35, 0.34, 0.35), (0.76, 0.75, 0.72)),
)


@dataclass(frozen=True)
class Road:
    """A street: its middle line (N, 2) px, points about a pixel apart, and its width, px."""

    points: Array
    width: float


def choose(scene: Painting, colours: tuple[Colour, ...], spread: float = 0.03) -> Array:
    """One of the colours, a little changed: (3,)."""
    base = np.array(colours[int(scene.rng.integers(len(colours)))], np.float32)
    tint = scene.rng.normal(0, spread * 0.25, 3)  # mostly lighter or darker, hardly another hue
    return np.asarray(base + scene.rng.normal(0, spread) + tint, np.float32)


def meadow(scene: Painting, colours: tuple[Colour, ...], contrast: float = 0.035) -> None:
    """Cover everything with one kind of ground, blotchy at every size."""
    rough = fractal(scene.rng, scene.size, _OCTAVES, 0.7)
    drift = fractal(scene.rng, scene.size, (3, 7, 15))
    two = choose(scene, colours, 0.06) - choose(scene, colours, 0.06)
    scene.image[:] = (
        choose(scene, colours) + drift[..., None] * two * 0.5 + rough[..., None] * contrast
    )
    scene.ground[:] = LAND


def patchwork(scene: Painting, angle: float, cell: float) -> None:
    """Ploughed fields of `cell` px in a turned grid with hedges between some of them."""
    size, rng = scene.size, scene.rng
    ys, xs = np.mgrid[:size, :size].astype(np.float32)
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    rows = np.floor((across + rng.uniform(0, cell)) / (cell * 0.8)).astype(int)
    shift = rng.uniform(0, cell, 64)[rows % 64]
    columns = np.floor((along + shift) / (cell * 1.4)).astype(int)
    fields = (rows * 57 + columns) % 64
    colour = np.stack([choose(scene, CROPS) for _ in range(64)])[fields]
    period, turn = rng.uniform(2.5, 6.0, 64)[fields], rng.integers(0, 2, 64)[fields]
    furrows = (
        np.sin(2 * np.pi * np.where(turn, along, across) / period)
        * rng.uniform(0.0, 0.03, 64)[fields]
    )
    grain = fractal(rng, size, _OCTAVES, 0.75) * 0.03
    scene.image[:] = colour + (furrows + grain)[..., None]
    border = np.zeros((size, size), np.float32)
    border[:, 1:] = fields[:, 1:] != fields[:, :-1]
    border[1:] = np.maximum(border[1:], fields[1:] != fields[:-1])
    fill(scene, border * rng.uniform(0.3, 0.9), choose(scene, GRASS) * 0.7)


def water(scene: Painting, mask: Array) -> None:
    """Water where `mask` covers: depth, ripples, a pale shore."""
    ripple = fractal(scene.rng, scene.size, (16, 40, 90, 200), 0.9) * 0.012
    depth = fractal(scene.rng, scene.size, (2, 4, 8))
    shore = np.clip(mask * (1 - mask) * 4, 0, 1)
    fill(scene, mask, choose(scene, SEA, 0.015), depth * 0.012 + ripple, WATER)
    fill(scene, np.asarray(shore * 0.5, np.float32), np.array((0.62, 0.62, 0.55), np.float32))


def coast(scene: Painting, angle: float, offset: float, ragged: float) -> Array:
    """Coverage (S, S) of the half plane beyond a line.

    The line lies `offset` px from the middle; its edge is ragged by `ragged` px.
    """
    ys, xs = np.mgrid[: scene.size, : scene.size].astype(np.float32) - scene.size / 2
    distance = xs * np.cos(angle) + ys * np.sin(angle) - offset
    distance = distance + fractal(scene.rng, scene.size, (3, 6, 14, 40)) * ragged
    return np.asarray(np.clip(distance + 0.5, 0, 1), np.float32)


def whitecaps(scene: Painting, count: int) -> None:
    """Clutter: short bright crests on the water, about as large as a boat."""
    for x, y in scene.rng.uniform(2, scene.size - 2, (count, 2)):
        if scene.ground[int(y), int(x)] == WATER:
            length, width = scene.rng.uniform(1.5, 7), scene.rng.uniform(0.8, 2)
            outline = rectangle(length, width, scene.rng.normal(0.4, 0.25), (x, y))
            fill(
                scene,
                polygon_mask(scene.size, outline) * float(scene.rng.uniform(0.2, 0.75)),
                (0.75, 0.79, 0.80),
            )


def road(scene: Painting, points: Array, width: float, dirt: bool = False) -> Road:
    """A street with verges and, if wide enough, markings."""
    rng, size = scene.rng, scene.size
    fill(scene, line_mask(size, points, width + 2) * 0.6, choose(scene, DRY))
    asphalt = choose(scene, DRY) if dirt else np.full(3, rng.uniform(0.30, 0.46), np.float32)
    fill(scene, line_mask(size, points, width), asphalt, scene.grain * 0.016, PAVED)
    if width >= 7 and not dirt:
        dash = rng.uniform(4, 7)
        starts = range(0, len(points) - int(dash), int(dash * 2.2))
        dashes = [points[start : start + int(dash)] for start in starts]
        fill(scene, line_mask(size, dashes, 1) * 0.55, (0.85, 0.85, 0.80))
    return Road(points, width)


def straight(scene: Painting, angle: float, through: tuple[float, float]) -> Array:
    """Middle line of a straight street through a point, across the whole picture."""
    reach = np.arange(-scene.size, scene.size, 1.0, dtype=np.float32)
    line = np.stack([through[0] + reach * np.cos(angle), through[1] + reach * np.sin(angle)], 1)
    near = (line > -20).all(1) & (line < scene.size + 20).all(1)
    return np.asarray(line[near], np.float32)


def bend(scene: Painting) -> Array:
    """Middle line of a country road: a quadratic curve from border to border."""
    rng, size = scene.rng, scene.size
    start, end = (-10, rng.uniform(0, size)), (size + 10, rng.uniform(0, size))
    middle = rng.uniform(0.25, 0.75, 2) * size
    step = np.linspace(0, 1, size + 40, dtype=np.float32)[:, None]
    curve = (
        (1 - step) ** 2 * np.array(start) + 2 * step * (1 - step) * middle + step**2 * np.array(end)
    )
    return np.asarray(curve[:, ::-1] if rng.random() < 0.5 else curve, np.float32)


def pavement(scene: Painting, outline: Array, light: float) -> None:
    """A paved area with joints and stains."""
    base = np.array((light, light * 0.985, light * 0.95), np.float32)
    fill(scene, polygon_mask(scene.size, outline), base, scene.grain * 0.02, PAVED)


def building(
    scene: Painting, x: float, y: float, length: float, width: float, angle: float
) -> bool:
    """A roof with its shadow, and a ridge or machines (clutter as large as vehicles).

    False without room.
    """
    outline = rectangle(length, width, angle, (x, y))
    mask = polygon_mask(scene.size, outline)
    under = mask > 0.2
    if not under.any() or (scene.ground[under] != LAND).any() or scene.taken[under].any():
        return False
    rng = scene.rng
    cast(scene, outline, rng.uniform(4, 9) * scene.scale)
    colour = choose(scene, ROOFS)
    fill(scene, mask, colour, scene.grain * 0.014, BLOCKED)
    if max(length, width) < 26 and rng.random() < 0.7:  # a pitched roof: one side in the light
        half = rectangle(length, width / 2, angle, rotated([(0, width / 4)], angle, (x, y))[0])
        fill(scene, polygon_mask(scene.size, half), np.asarray(colour * 0.78, np.float32))
        return True
    for _ in range(int(rng.integers(0, 5))):
        at = rotated(
            [(rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.4, 0.4) * width)], angle, (x, y)
        )[0]
        block = rectangle(rng.uniform(2.5, 7), rng.uniform(2, 4.2), angle, at)
        cast(scene, block, 1.5, 0.4)
        fill(
            scene,
            polygon_mask(scene.size, block),
            np.asarray(colour + rng.uniform(-0.15, 0.25), np.float32),
        )
    return True


def trees(scene: Painting, count: int, clumped: bool = True) -> None:
    """Trees on open ground, alone or in groves."""
    rng = scene.rng
    middle = rng.uniform(0, scene.size, (max(count // 12, 1), 2))
    for _ in range(count):
        spread = middle[int(rng.integers(len(middle)))] + rng.normal(0, 16, 2)
        x, y = spread if clumped else rng.uniform(0, scene.size, 2)
        if on_ground(scene, x, y, LAND):
            tree(scene, x, y, rng.uniform(4, 11) * scene.scale)


def on_ground(scene: Painting, x: float, y: float, kind: int, margin: int = 1) -> bool:
    """Whether the pixels round (x, y) are all of one kind of ground."""
    left, top = int(x) - margin, int(y) - margin
    if left < 0 or top < 0 or left + 2 * margin >= scene.size or top + 2 * margin >= scene.size:
        return False
    return bool(
        (scene.ground[top : top + 2 * margin + 1, left : left + 2 * margin + 1] == kind).all()
    )


def anywhere(scene: Painting) -> tuple[float, float]:
    """Return a point x, y somewhere in the picture, px."""
    x, y = scene.rng.uniform(0, scene.size, 2)
    return float(x), float(y)


def rocks(scene: Painting, count: int) -> None:
    """Clutter: grey stones with shadows, of the size of people and vehicles."""
    rng = scene.rng
    for x, y in rng.uniform(0, scene.size, (count, 2)):
        if on_ground(scene, x, y, LAND, 2):
            turn = np.sort(rng.uniform(0, 2 * np.pi, 7))
            radii = np.array([1.0, rng.uniform(0.5, 1)]) * rng.uniform(1, 4.5)
            outline = np.asarray(
                np.stack([np.cos(turn), np.sin(turn)], 1) * radii + (x, y), np.float32
            )
            red, green, blue = (choose(scene, DRY) * 0.8).tolist()
            stamp(scene, [(outline, (red, green, blue))], 1.5, None)
