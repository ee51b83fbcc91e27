"""The six classes of the demo, and the things that only look like them.

They are coloured polygons; sizes are in px at scale 1.
"""

import numpy as np

from rfla.tools.demo.canvas import (
    Array,
    Colour,
    Painting,
    darken,
    disc,
    line_mask,
    polygon_mask,
    rectangle,
    rotated,
    stamp,
)

NAMES = ("vehicle", "ship", "storage-tank", "airplane", "person", "wind-mill")
VEHICLE, SHIP, TANK, AIRPLANE, PERSON, MILL = range(6)

_CAR_PAINT: tuple[Colour, ...] = (
    *(
        (0.92, 0.92, 0.92),
        (0.85, 0.86, 0.88),
        (0.66, 0.68, 0.70),
        (0.45, 0.46, 0.48),
        (0.17, 0.18, 0.20),
    ),
    *(
        (0.60, 0.13, 0.11),
        (0.16, 0.25, 0.48),
        (0.74, 0.66, 0.50),
        (0.22, 0.34, 0.26),
        (0.80, 0.62, 0.14),
    ),
)
_STEEL: tuple[Colour, ...] = (
    *(
        (0.62, 0.25, 0.16),
        (0.20, 0.36, 0.50),
        (0.30, 0.45, 0.30),
        (0.68, 0.60, 0.42),
        (0.60, 0.60, 0.62),
    ),
)
_HULLS: tuple[Colour, ...] = (
    *(
        (0.90, 0.90, 0.88),
        (0.80, 0.80, 0.78),
        (0.45, 0.18, 0.14),
        (0.22, 0.26, 0.32),
        (0.55, 0.50, 0.42),
    ),
)
_CLOTHES: tuple[Colour, ...] = (
    *(
        (0.85, 0.20, 0.16),
        (0.15, 0.25, 0.60),
        (0.92, 0.92, 0.90),
        (0.12, 0.12, 0.14),
        (0.85, 0.72, 0.20),
    ),
    *((0.30, 0.55, 0.35), (0.70, 0.45, 0.55)),
)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(max(channel * factor, 0.0), 1.0) for channel in colour)
    return red, green, blue


def _pick(scene: Painting, colours: tuple[Colour, ...]) -> Colour:
    return _shade(
        colours[int(scene.rng.integers(len(colours)))], float(scene.rng.uniform(0.85, 1.1))
    )


def vehicle(scene: Painting, x: float, y: float, angle: float) -> bool:
    """A car, a van or a lorry: 7 to 16 px long."""
    rng, scale = scene.rng, scene.scale
    kind = rng.random()
    length, width = rng.uniform(7.5, 9.0) * scale, rng.uniform(3.5, 4.1) * scale
    paint = _pick(scene, _CAR_PAINT)
    if kind > 0.9:  # a lorry: cab and trailer
        length, width = rng.uniform(13.0, 16.0) * scale, 4.4 * scale
        cab = rectangle(
            length * 0.22, width * 0.95, angle, rotated([(length * 0.39, 0)], angle, (x, y))[0]
        )
        load = rectangle(
            length * 0.74, width, angle, rotated([(-length * 0.13, 0)], angle, (x, y))[0]
        )
        box = _pick(scene, ((0.86, 0.86, 0.84), (0.62, 0.60, 0.56), (0.40, 0.46, 0.52)))
        return stamp(scene, [(load, box), (cab, paint)], 3.5 * scale, VEHICLE)
    nose = length * 0.10
    half, side = length / 2, width / 2
    outline = [
        (-half, -side),
        (half - nose, -side),
        (half, -side * 0.7),
        (half, side * 0.7),
        (half - nose, side),
        (-half, side),
    ]
    glass: Colour = (0.10, 0.13, 0.17)
    front = rectangle(
        length * 0.16, width * 0.8, angle, rotated([(length * 0.16, 0)], angle, (x, y))[0]
    )
    rear = rectangle(
        length * 0.10, width * 0.75, angle, rotated([(-length * 0.33, 0)], angle, (x, y))[0]
    )
    parts = [(rotated(outline, angle, (x, y)), paint), (front, glass), (rear, _shade(glass, 1.3))]
    return stamp(scene, parts, 1.6 * scale, VEHICLE)


def container(scene: Painting, x: float, y: float, angle: float) -> bool:
    """Clutter: a container, a lorry's load without the lorry."""
    colour = _pick(scene, _STEEL)
    length = scene.rng.uniform(7, 13) * scene.scale
    outline = rectangle(length, 3.8 * scene.scale, angle, (x, y))
    ridge = rectangle(length * 0.9, 0.8 * scene.scale, angle, (x, y))
    return stamp(scene, [(outline, colour), (ridge, _shade(colour, 1.15))], 2.5 * scene.scale, None)


def ship(scene: Painting, x: float, y: float, angle: float, length: float) -> bool:
    """A hull with a pointed bow, `length` px before scaling: a boat at 7, a freighter at 28."""
    length *= scene.scale
    width = max(length * scene.rng.uniform(0.24, 0.32), 2.2)
    half, side = length / 2, width / 2
    outline = [
        (-half, -side * 0.8),
        (half * 0.45, -side),
        (half, 0.0),
        (half * 0.45, side),
        (-half, side * 0.8),
    ]
    hull = _pick(scene, _HULLS)
    deck = [(px * 0.82, py * 0.66) for px, py in outline]
    parts = [
        (rotated(outline, angle, (x, y)), hull),
        (rotated(deck, angle, (x, y)), _shade(hull, 0.78)),
    ]
    place = -half * 0.55 if length > 14 else -half * 0.1
    bridge = rectangle(length * 0.18, width * 0.6, angle, rotated([(place, 0)], angle, (x, y))[0])
    parts.append((bridge, (0.93, 0.93, 0.92)))
    for slot in range(int(length // 7) if length > 16 else 0):  # hatches
        at = rotated([(half * 0.4 - slot * length * 0.2, 0)], angle, (x, y))[0]
        parts.append((rectangle(length * 0.12, width * 0.5, angle, at), _pick(scene, _STEEL)))
    return stamp(scene, parts[:6], 2.0 * scene.scale, SHIP)


def tank(scene: Painting, x: float, y: float, diameter: float) -> bool:
    """A round tank with a lit and a shaded side, `diameter` px before scaling."""
    diameter *= scene.scale
    white = _pick(
        scene, ((0.88, 0.88, 0.86), (0.80, 0.79, 0.75), (0.70, 0.70, 0.68), (0.62, 0.56, 0.48))
    )
    toward = -scene.sun / (np.linalg.norm(scene.sun) + 1e-6)
    parts: list[tuple[Array, Colour]] = [
        (disc(diameter, (x, y)), _shade(white, 0.72)),
        (disc(diameter * 0.88, (x, y) + toward * diameter * 0.05), white),
        (disc(diameter * 0.52, (x, y) + toward * diameter * 0.12), _shade(white, 1.1)),
    ]
    if scene.rng.random() < 0.5:  # a floating roof
        parts.append((disc(diameter * 0.72, (x, y)), _shade(white, 0.86)))
    return stamp(scene, parts, min(0.3 * diameter, 4.0) + 1.0, TANK)


def tree(scene: Painting, x: float, y: float, diameter: float) -> bool:
    """Clutter: a round crown with a lit side, much like a tank in shape and shadow."""
    toward = -scene.sun / (np.linalg.norm(scene.sun) + 1e-6)
    green = _pick(
        scene, ((0.16, 0.25, 0.13), (0.20, 0.29, 0.14), (0.25, 0.30, 0.16), (0.13, 0.20, 0.12))
    )
    crown = disc(diameter, (x, y), 11)
    crown += scene.rng.normal(0, diameter * 0.05, crown.shape).astype(np.float32)
    lit = disc(diameter * 0.6, (x, y) + toward * diameter * 0.14, 7)
    lit += scene.rng.normal(0, diameter * 0.05, lit.shape).astype(np.float32)
    return stamp(scene, [(crown, green), (lit, _shade(green, 1.45))], 0.45 * diameter, None)


def airplane(scene: Painting, x: float, y: float, angle: float, length: float) -> bool:
    """Fuselage, swept wings, tail.

    `length` is in px before scaling: 10 for a small one, 28 for an airliner.
    """
    length *= scene.scale
    span, body = length * scene.rng.uniform(0.85, 1.0), max(length * 0.11, 1.3)
    white = _pick(scene, ((0.94, 0.94, 0.94), (0.86, 0.87, 0.88), (0.75, 0.77, 0.80)))
    half = length / 2
    fuselage = [
        (-half, -body * 0.3),
        (half * 0.8, -body / 2),
        (half, 0),
        (half * 0.8, body / 2),
        (-half, body * 0.3),
    ]
    chord, sweep = length * 0.17, length * 0.20
    parts: list[tuple[Array, Colour]] = []
    for side in (-1, 1):
        wing = [
            (half * 0.22, 0),
            (half * 0.22 - chord, 0),
            (half * 0.05 - sweep - chord * 0.4, side * span / 2),
        ]
        wing.append((half * 0.05 - sweep, side * span / 2))
        tail = [
            (-half * 0.72, 0),
            (-half * 0.95, 0),
            (-half, side * span * 0.19),
            (-half * 0.9, side * span * 0.19),
        ]
        parts.append((rotated(wing, angle, (x, y)), _shade(white, 0.9)))
        parts.append((rotated(tail, angle, (x, y)), _shade(white, 0.85)))
        engine = rotated([(half * 0.1, side * span * 0.2)], angle, (x, y))[0]
        parts.append((rectangle(length * 0.11, body * 0.45, angle, engine), (0.45, 0.46, 0.48)))
    parts.append((rotated(fuselage, angle, (x, y)), white))
    fin = rectangle(
        length * 0.16, body * 0.35, angle, rotated([(-half * 0.85, 0)], angle, (x, y))[0]
    )
    parts.append(
        (
            fin,
            _pick(
                scene,
                ((0.70, 0.16, 0.14), (0.15, 0.25, 0.55), (0.80, 0.62, 0.15), (0.35, 0.36, 0.4)),
            ),
        )
    )
    return stamp(scene, parts, 2.5 * scene.scale, AIRPLANE)


def person(scene: Painting, x: float, y: float) -> bool:
    """Shoulders and a head, 2 to 5 px."""
    rng = scene.rng
    width = rng.uniform(2.8, 4.2) * scene.scale
    angle = rng.uniform(0, np.pi)
    body = disc(1.0, corners=10) * np.array([width, width * rng.uniform(0.6, 0.8)], np.float32)
    skin = _pick(scene, ((0.25, 0.17, 0.12), (0.12, 0.10, 0.09), (0.70, 0.55, 0.42)))
    parts = [
        (rotated(body, angle, (x, y)), _pick(scene, _CLOTHES)),
        (disc(width * 0.42, (x, y), 8), skin),
    ]
    return stamp(scene, parts, 2.2 * scene.scale, PERSON)


def parasol(scene: Painting, x: float, y: float) -> bool:
    """Clutter: a round parasol on the beach."""
    colour = _pick(scene, _CLOTHES)
    diameter = scene.rng.uniform(4, 6) * scene.scale
    return stamp(
        scene,
        [
            (disc(diameter, (x, y), 8), colour),
            (disc(diameter * 0.4, (x, y), 8), _shade(colour, 1.2)),
        ],
        3.0,
        None,
    )


def mill(scene: Painting, x: float, y: float, angle: float, diameter: float) -> bool:
    """A wind mill seen from above and aside: three blades on a hub, a tower, and a long shadow."""
    radius = diameter * scene.scale / 2
    white = _pick(scene, ((0.95, 0.95, 0.95), (0.88, 0.89, 0.90)))
    parts: list[tuple[Array, Colour]] = []
    for blade in range(3):
        turn = angle + blade * 2 * np.pi / 3
        shape = [
            (0, -0.55),
            (radius * 0.3, -0.8),
            (radius, -0.2),
            (radius, 0.2),
            (radius * 0.3, 0.6),
            (0, 0.55),
        ]
        parts.append((rotated(shape, turn, (x, y)), white))
    tower = -scene.sun / (np.linalg.norm(scene.sun) + 1e-6) * radius * 0.5
    foot = rotated([(-0.5, -0.5), (0.5, 0.5), tuple(tower + 0.7), tuple(tower - 0.7)], 0.0, (x, y))
    parts = [
        (foot, _shade(white, 0.86)),
        *parts,
        (disc(max(radius * 0.2, 1.6), (x, y), 10), _shade(white, 0.92)),
    ]
    if not stamp(scene, parts, 0.0, MILL):
        return False
    reach = scene.sun * radius * 2.2
    dark = line_mask(scene.size, np.array([[x, y], [x + reach[0], y + reach[1]]], np.float32), 1)
    for points, _ in parts[
        1:4
    ]:  # the rotor's shadow is as far away as the hub is high, and foreshortened
        flat = (points - (x, y)) * np.array([1.0, 0.6], np.float32)
        dark = np.maximum(dark, polygon_mask(scene.size, flat + reach + (x, y)))
    darken(scene, dark * ~scene.taken, 0.5)
    return True
