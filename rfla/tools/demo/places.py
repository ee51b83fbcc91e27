"""The places of the demo: each function paints one kind of scene and puts its objects in."""

from collections.abc import Callable

import numpy as np

from rfla.tools.demo import objects
from rfla.tools.demo.canvas import (
    PAVED,
    Array,
    Painting,
    fill,
    line_mask,
    polygon_mask,
    rectangle,
    rotated,
)
from rfla.tools.demo.ground import (
    DRY,
    GRASS,
    Road,
    anywhere,
    bend,
    building,
    coast,
    meadow,
    on_ground,
    patchwork,
    pavement,
    road,
    rocks,
    straight,
    trees,
    water,
    whitecaps,
)
from rfla.tools.demo.shores import beach, harbour


def traffic(scene: Painting, lane: Road, gap: float) -> None:
    """Vehicles in both directions along a street, `gap` px apart on average."""
    rng = scene.rng
    for side in (-1, 1):
        place = rng.uniform(0, gap)
        while place < len(lane.points) - 2:
            here, ahead = lane.points[int(place)], lane.points[int(place) + 1]
            angle = float(np.arctan2(ahead[1] - here[1], ahead[0] - here[0]))
            offset = side * lane.width * 0.24 + rng.normal(0, 0.3)
            x, y = here + np.array([-np.sin(angle), np.cos(angle)]) * offset
            objects.vehicle(scene, x, y, angle + (np.pi if side < 0 else 0) + rng.normal(0, 0.03))
            place += 12 * scene.scale + rng.exponential(gap)


def car_park(
    scene: Painting, x: float, y: float, angle: float, columns: int, rows: int, full: float
) -> None:
    """Rows of marked bays, a share of them taken: a crowd of vehicles side by side."""
    scale, rng = scene.scale, scene.rng
    bay, depth = 4.9 * scale, 10.5 * scale
    pavement(
        scene,
        rectangle(columns * bay + 6, rows * depth * 1.45 + 4, angle, (x, y)),
        rng.uniform(0.36, 0.5),
    )
    for row in range(rows):
        lie = (row - (rows - 1) / 2) * depth * 1.45
        places = [(column - columns / 2) * bay for column in range(columns + 1)]
        ends = [
            rotated([(at, lie - depth / 2), (at, lie + depth / 2)], angle, (x, y)) for at in places
        ]
        fill(scene, line_mask(scene.size, ends, 1) * 0.4, (0.85, 0.85, 0.82))
        for column, at in enumerate(places):
            if column < columns and rng.random() < full:
                cx, cy = rotated([(at + bay / 2, lie + rng.normal(0, 0.5))], angle, (x, y))[0]
                objects.vehicle(
                    scene, cx, cy, angle + np.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.03)
                )


def town(scene: Painting) -> None:
    """Streets in a grid, houses, gardens, sometimes a car park."""
    rng, size = scene.rng, scene.size
    meadow(scene, GRASS)
    angle, block = rng.uniform(0, np.pi / 2), rng.uniform(62, 95)
    lanes = []
    for number in range(-3, 4):
        for turn in (angle, angle + np.pi / 2):
            shift = (
                np.array([-np.sin(turn), np.cos(turn)])
                * block
                * number
                * (1.0 if turn == angle else 1.4)
            )
            through = (size / 2 + shift[0], size / 2 + shift[1])
            points = straight(scene, turn, through)
            if len(points) > 30:
                lanes.append(road(scene, points, 10.5 * scene.scale))
    if rng.random() < 0.6:
        at = rng.uniform(0.3, 0.7, 2) * size
        car_park(
            scene,
            at[0],
            at[1],
            angle,
            int(rng.integers(5, 12)),
            int(rng.integers(1, 4)),
            rng.uniform(0.4, 0.9),
        )
    step = rng.uniform(19, 27) * scene.scale
    lattice = np.arange(-size * 0.75, size * 0.75, step, dtype=np.float32)
    grid = np.stack(np.meshgrid(lattice, lattice * 1.1), -1).reshape(-1, 2)
    for x, y in rotated(grid + rng.normal(0, 2, grid.shape), angle, (size / 2, size / 2)):
        if 0 < x < size and 0 < y < size and rng.random() < 0.8:
            turn = angle + np.pi / 2 * int(rng.integers(2))
            building(
                scene, x, y, rng.uniform(0.6, 0.95) * step, rng.uniform(0.45, 0.65) * step, turn
            )
    for lane in lanes:
        traffic(scene, lane, rng.uniform(25, 110))
    trees(scene, int(rng.integers(20, 60)), clumped=False)


def countryside(scene: Painting) -> None:
    """Fields, a road with some traffic, a farm, groves."""
    rng = scene.rng
    patchwork(scene, rng.uniform(0, np.pi), rng.uniform(40, 90))
    for _ in range(int(rng.integers(1, 3))):
        traffic(
            scene, road(scene, bend(scene), rng.uniform(9, 13) * scene.scale), rng.uniform(40, 160)
        )
    x, y = rng.uniform(0.2, 0.8, 2) * scene.size
    turn = rng.uniform(0, np.pi)
    for _ in range(5):
        at = rng.normal(0, 18, 2)
        building(scene, x + at[0], y + at[1], rng.uniform(12, 30), rng.uniform(9, 15), turn)
    trees(scene, int(rng.integers(10, 50)))


def wind_farm(scene: Painting) -> None:
    """Wind mills over fields, bare hills or the sea."""
    rng, size = scene.rng, scene.size
    kind = rng.random()
    if kind < 0.25:
        meadow(scene, GRASS)
        water(scene, np.ones((size, size), np.float32))
        whitecaps(scene, 60)
    elif kind < 0.7:
        patchwork(scene, rng.uniform(0, np.pi), rng.uniform(50, 90))
    else:
        meadow(scene, DRY + GRASS, 0.05)
    if kind >= 0.25:
        traffic(scene, road(scene, bend(scene), 5 * scene.scale, dirt=True), 300)
        trees(scene, int(rng.integers(0, 40)))
    blades, spacing = rng.uniform(0, 2 * np.pi), rng.uniform(50, 80)
    shift = rng.uniform(0, spacing, 2)
    for column in range(6):
        for row in range(6):
            if rng.random() < 0.75:
                x, y = shift + np.array([column, row]) * spacing + rng.normal(0, 7, 2)
                objects.mill(scene, x, y, blades + rng.normal(0, 0.6), rng.uniform(15, 24))


def airport(scene: Painting) -> None:
    """Runway, apron with parked airplanes, a terminal, service vehicles."""
    rng, size = scene.rng, scene.size
    meadow(scene, GRASS + DRY[:1])
    angle = rng.uniform(0, np.pi)
    across = np.array([-np.sin(angle), np.cos(angle)])
    middle = np.array([size / 2, size / 2]) + across * rng.uniform(-20, 20)
    runway = straight(scene, angle, tuple(middle - across * rng.uniform(60, 80)))
    road(scene, runway, rng.uniform(20, 28))
    pavement(
        scene,
        rectangle(rng.uniform(170, 300), 78, angle, middle + across * 22),
        rng.uniform(0.52, 0.66),
    )
    length = float(rng.choice([11, 14, 20, 25]))
    step = length * scene.scale * 1.15 + 4
    for row in range(1 if length > 18 else int(rng.integers(1, 4))):
        for place in np.arange(-120, 120, step):
            x, y = middle + across * (34 - row * step) + rotated([(place, 0)], angle)[0]
            if rng.random() < 0.75 and on_ground(scene, x, y, PAVED, 2):
                objects.airplane(
                    scene,
                    x,
                    y,
                    angle + np.pi / 2 + rng.normal(0, 0.06),
                    length * rng.uniform(0.85, 1.1),
                )
    for place in rng.uniform(-120, 120, int(rng.integers(0, 3))):  # on the runway
        x, y = runway[len(runway) // 2] + rotated([(place, 0)], angle)[0]
        objects.airplane(scene, x, y, angle, length)
    for _ in range(int(rng.integers(4, 14))):
        x, y = (
            middle
            + across * rng.uniform(-10, 56)
            + rotated([(rng.uniform(-120, 120), 0)], angle)[0]
        )
        if on_ground(scene, x, y, PAVED, 3):
            objects.vehicle(scene, x, y, angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2))
    x, y = middle + across * 78
    building(scene, x, y, rng.uniform(90, 160), 22, angle)
    for _ in range(int(rng.integers(0, 12))):  # painted stands: thin crosses
        at = (
            middle + across * rng.uniform(-5, 40) + rotated([(rng.uniform(-110, 110), 0)], angle)[0]
        )
        cross = line_mask(size, rotated([(-7, 0), (7, 0)], angle + np.pi / 2, at), 1) * (
            ~scene.taken
        )
        fill(scene, np.asarray(cross * 0.5, np.float32), (0.85, 0.75, 0.30))
    trees(scene, int(rng.integers(0, 25)))


def tank_farm(scene: Painting) -> None:
    """Round tanks in walled squares, pipes, lorries; round trees outside."""
    rng, size = scene.rng, scene.size
    meadow(scene, DRY + GRASS[:1])
    angle = rng.uniform(0, np.pi / 2)
    lane = road(
        scene, straight(scene, angle, (size / 2, size / 2 + rng.uniform(-90, 90))), 10 * scene.scale
    )
    cell, split = rng.uniform(28, 50), int(rng.choice([1, 1, 2]))
    verge = line_mask(size, lane.points, 14)
    for column in range(-4, 5):
        for row in range(-4, 5):
            at = rotated([(column * cell, row * cell)], angle, (size / 2, size / 2))[0]
            crossed = (verge * polygon_mask(size, rectangle(cell, cell, angle, at))).any()
            if rng.random() < 0.42 and not crossed:
                _tank_court(scene, at, angle, cell, split if rng.random() < 0.75 else 3)
    traffic(scene, lane, rng.uniform(30, 90))
    for _ in range(16):
        building(scene, *anywhere(scene), rng.uniform(12, 26), rng.uniform(9, 16), angle)
    trees(scene, int(rng.integers(30, 70)), clumped=bool(rng.random() < 0.5))


def _tank_court(scene: Painting, at: Array, angle: float, cell: float, count: int) -> None:
    rng = scene.rng
    pavement(scene, rectangle(cell - 3, cell - 3, angle, at), rng.uniform(0.5, 0.64))
    wall = rectangle(cell - 4, cell - 4, angle, at)
    fill(
        scene, line_mask(scene.size, np.concatenate([wall, wall[:1]]), 1) * 0.6, (0.75, 0.74, 0.70)
    )
    room = (cell - 8) / count
    for row in range(count):
        for column in range(count):
            lie = [((column - (count - 1) / 2) * room, (row - (count - 1) / 2) * room)]
            x, y = rotated(lie, angle, at)[0]
            if rng.random() < 0.9:
                objects.tank(scene, x, y, min(room * rng.uniform(0.6, 0.82), 26) / scene.scale)


def square(scene: Painting) -> None:
    """A paved square between houses with people in groups, trees, a street beside it."""
    rng, size = scene.rng, scene.size
    meadow(scene, GRASS)
    angle = rng.uniform(0, np.pi / 2)
    lane = road(
        scene, straight(scene, angle, (size / 2, size * rng.uniform(0.08, 0.2))), 11 * scene.scale
    )
    middle = np.array([size / 2, size / 2 + 18])
    pavement(
        scene,
        rectangle(rng.uniform(120, 200), rng.uniform(80, 130), angle, middle),
        rng.uniform(0.5, 0.68),
    )
    for _ in range(60):
        turn = angle + np.pi / 2 * int(rng.integers(2))
        building(scene, *anywhere(scene), rng.uniform(22, 48), rng.uniform(14, 24), turn)
    hubs = middle + rng.normal(0, 40, (int(rng.integers(3, 8)), 2))
    for _ in range(int(rng.integers(30, 150))):
        x, y = hubs[int(rng.integers(len(hubs)))] + rng.normal(0, 18, 2)
        if on_ground(scene, x, y, PAVED, 2):
            objects.person(scene, x, y)
    traffic(scene, lane, rng.uniform(25, 60))
    trees(scene, 30, clumped=False)


def wilderness(scene: Painting) -> None:
    """Nothing to find: bare ground with rocks, a forest, or open water with crests."""
    rng, kind = scene.rng, scene.rng.random()
    if kind < 0.35:
        meadow(scene, GRASS)
        water(scene, coast(scene, rng.uniform(0, 2 * np.pi), rng.uniform(-200, 40), 6))
        whitecaps(scene, 120)
    elif kind < 0.7:
        meadow(scene, GRASS, 0.05)
        trees(scene, 220, clumped=True)
    else:
        meadow(scene, DRY, 0.06)
        rocks(scene, 90)
        trees(scene, 20, clumped=False)


PLACES: tuple[Callable[[Painting], None], ...] = (
    *(town, harbour, tank_farm, airport, beach, wind_farm, countryside, square),
    *(harbour, tank_farm, airport, town, wind_farm, beach, wilderness),
)
