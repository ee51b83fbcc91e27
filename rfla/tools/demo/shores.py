"""The places of the demo by the water: a harbour and a beach."""

import numpy as np

from rfla.tools.demo import objects
from rfla.tools.demo.canvas import (
    LAND,
    PAVED,
    WATER,
    Array,
    Painting,
    fill,
    line_mask,
    rectangle,
    rotated,
)
from rfla.tools.demo.ground import (
    DRY,
    GRASS,
    SAND,
    building,
    choose,
    coast,
    meadow,
    on_ground,
    pavement,
    rocks,
    water,
    whitecaps,
)


def harbour(scene: Painting) -> None:
    """A quay with containers and sheds, moored boats, ships under way, crests on the water."""
    rng, size = scene.rng, scene.size
    meadow(scene, DRY + GRASS)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-size * 0.3, size * 0.1)
    water(scene, coast(scene, angle, offset, 0.4))
    middle = np.array([size / 2, size / 2])
    seaward, along = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    quay = rectangle(2 * size, 26, angle + np.pi / 2, middle + seaward * (offset - 13))
    pavement(scene, quay, rng.uniform(0.45, 0.6))
    for place in np.arange(-size * 0.7, size * 0.7, rng.uniform(44, 70)):
        _jetty(scene, middle + seaward * offset + along * place, angle, rng.uniform(30, 70))
    for _ in range(22):
        x, y = (
            middle
            + seaward * (offset - rng.uniform(4, 22))
            + along * rng.uniform(-size * 0.6, size * 0.6)
        )
        put = objects.vehicle if rng.random() < 0.35 else objects.container
        put(scene, x, y, angle + np.pi / 2 * int(rng.integers(2)) + rng.normal(0, 0.03))
    for _ in range(30):
        x, y = (
            middle
            + seaward * (offset - rng.uniform(38, 110))
            + along * rng.uniform(-size * 0.7, size * 0.7)
        )
        building(
            scene,
            x,
            y,
            rng.uniform(20, 44),
            rng.uniform(12, 22),
            angle + np.pi / 2 * int(rng.integers(2)),
        )
    for _ in range(int(rng.integers(3, 10))):
        _sailing(scene, rng.uniform(6, size - 6, 2), float(rng.choice([8, 11, 16, 26])))
    whitecaps(scene, int(rng.integers(20, 90)))


def _jetty(scene: Painting, foot: Array, angle: float, length: float) -> None:
    rng = scene.rng
    tip = foot + np.array([np.cos(angle), np.sin(angle)]) * length
    fill(
        scene,
        line_mask(scene.size, np.array([foot, tip], np.float32), 3),
        (0.55, 0.50, 0.43),
        ground=PAVED,
    )
    boat = rng.uniform(7, 14)
    for place in np.arange(8, length, boat * 0.42 * scene.scale + 1.5):
        for side in (-1, 1):
            if rng.random() < 0.7:
                turn = angle + side * np.pi / 2
                reach = boat * scene.scale / 2 + 2.6
                x, y = (
                    rotated([(place, 0)], angle, foot)[0]
                    + np.array([np.cos(turn), np.sin(turn)]) * reach
                )
                if on_ground(scene, x, y, WATER):
                    objects.ship(
                        scene,
                        x,
                        y,
                        turn + np.pi * int(rng.integers(2)),
                        boat * rng.uniform(0.8, 1.1),
                    )


def _sailing(scene: Painting, at: Array, length: float) -> None:
    x, y = at
    if not on_ground(scene, x, y, WATER, 4):
        return
    angle = scene.rng.uniform(0, 2 * np.pi)
    half, reach = length * scene.scale / 2, scene.rng.uniform(1.5, 4) * length
    for spread in (-0.16, 0.16):  # a wake opens behind the stern
        line = rotated([(-half * 0.6, 0), (-half - reach * 0.8, spread * reach)], angle, (x, y))
        wake = line_mask(scene.size, line, 1) * (scene.ground == WATER)
        fill(scene, np.asarray(wake * 0.45, np.float32), (0.72, 0.77, 0.78))
    objects.ship(scene, x, y, angle, length)


def beach(scene: Painting) -> None:
    """Sand and surf, people and parasols in crowds."""
    rng, size = scene.rng, scene.size
    meadow(scene, SAND, 0.02)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-10, 70)
    sea = coast(scene, angle, offset, 3.5)
    foam = coast(scene, angle, offset - 5, 3.5) * (1 - sea)
    fill(
        scene,
        np.asarray(foam * 0.5, np.float32),
        np.asarray(choose(scene, SAND) * 0.75, np.float32),
    )
    water(scene, sea)
    whitecaps(scene, int(rng.integers(20, 70)))
    hubs = rng.uniform(0, size, (int(rng.integers(2, 6)), 2))
    for _ in range(int(rng.integers(40, 190))):
        x, y = hubs[int(rng.integers(len(hubs)))] + rng.normal(0, 36, 2)
        if on_ground(scene, x, y, LAND, 2) or (
            rng.random() < 0.35 and on_ground(scene, x, y, WATER, 2)
        ):
            put = (
                objects.parasol
                if rng.random() < 0.14 and on_ground(scene, x, y, LAND, 2)
                else objects.person
            )
            put(scene, x, y)
    for _ in range(int(rng.integers(0, 4))):
        _sailing(scene, rng.uniform(6, size - 6, 2), float(rng.choice([8, 12])))
    rocks(scene, int(rng.integers(5, 30)))
