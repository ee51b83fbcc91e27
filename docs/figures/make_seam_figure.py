"""Draw docs/figures/seams.png: what tiles find of painted objects, merged by four rules.

    python docs/figures/make_seam_figure.py

Red boxes are no object: parts, doubles, or grown over a neighbour. Crosses are objects that were
lost. Dashed lines are edges of tiles.
"""

from pathlib import Path

import cv2
import numpy as np

from rfla.pictures.boxes import enlarge
from rfla.predict import merge_tiles, plan_tiles

HEIGHT, WIDTH, TILE, OVERLAP = 100, 150, 84, 18
FACTOR = 4
GROUND, OBJECT, EDGE = (52, 66, 52), (140, 150, 140), (200, 200, 90)
RIGHT, WRONG = (80, 220, 255), (255, 70, 70)


def paint() -> np.ndarray:
    """Return objects of 6 to 16 px, xyxy: rows of small ones, larger ones at the seams."""
    x, y = np.meshgrid(np.arange(50, 100, 7), np.arange(54, 96, 7))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    corners = np.concatenate([grid, [[14, 60], [20, 20], [60, 8], [78, 26], [118, 14], [120, 66]]])
    sides = np.concatenate(
        [np.full((len(grid), 2), 6), [[16, 9], [12, 12], [16, 8], [9, 16], [14, 14], [8, 15]]]
    )
    return np.concatenate([corners, corners + sides], axis=1).astype(float)


def found_in(tiles: np.ndarray, objects: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return what each tile shows of the objects; parts score a little higher than the whole."""
    rng = np.random.default_rng(4)
    found = []
    for tile in tiles:
        low, high = np.maximum(objects[:, :2], tile[:2]), np.minimum(objects[:, 2:], tile[2:])
        seen = np.concatenate([low, high], axis=1)
        rows = (high - low > 0).all(axis=1)
        cut = (seen[rows] != objects[rows]).any(axis=1)
        scores = rng.uniform(0.5, 0.8, rows.sum()) + 0.1 * cut
        found.append((seen[rows] - np.tile(tile[:2], 2), scores, np.zeros(rows.sum(), int)))
    return found


def draw(objects: np.ndarray, boxes: np.ndarray, tiles: np.ndarray, title: str) -> np.ndarray:
    """Return a picture of the objects with boxes over them, and how many are wrong below."""
    picture = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    for x1, y1, x2, y2 in objects.astype(int):
        picture[y1:y2, x1:x2] = OBJECT
    canvas = enlarge(picture, FACTOR)
    for value in sorted({*tiles[:, 0].tolist(), *tiles[:, 2].tolist()} - {0, WIDTH}):
        canvas[::8, value * FACTOR] = canvas[1::8, value * FACTOR] = EDGE
    for value in sorted({*tiles[:, 1].tolist(), *tiles[:, 3].tolist()} - {0, HEIGHT}):
        canvas[value * FACTOR, ::8] = canvas[value * FACTOR, 1::8] = EDGE

    truth, taken, wrong = [tuple(box) for box in objects.tolist()], set(), 0
    for box in boxes.tolist():
        right = tuple(box) in truth and tuple(box) not in taken
        taken.add(tuple(box))
        wrong += not right
        x1, y1, x2, y2 = (round(value * FACTOR) for value in box)
        grow = 1 if right else 2
        colour = RIGHT if right else WRONG
        cv2.rectangle(canvas, (x1 - grow, y1 - grow), (x2 + grow - 1, y2 + grow - 1), colour, 1)
    lost = [box for box in truth if box not in taken]
    for box in lost:
        centre = (round((box[0] + box[2]) * FACTOR / 2), round((box[1] + box[3]) * FACTOR / 2))
        cv2.drawMarker(canvas, centre, WRONG, cv2.MARKER_TILTED_CROSS, 12, 2)
    strip = np.full((34, canvas.shape[1], 3), 24, np.uint8)
    text = f"{title}: {len(objects)} objects, {wrong} wrong boxes, {len(lost)} lost"
    cv2.putText(strip, text, (8, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (230,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([canvas, strip])


def main() -> None:
    """Write the figure beside this file."""
    objects = paint()
    tiles = plan_tiles(HEIGHT, WIDTH, TILE, OVERLAP)
    found = found_in(tiles, objects)
    pictures = []
    for title, rule, metric in (
        ("all tiles", "none", "iou"),
        ("NMS by IoU", "nms", "iou"),
        ("NMS by IoS", "nms", "ios"),
        ("seam", "seam", "iou"),
    ):
        boxes, *_ = merge_tiles(found, tiles, (HEIGHT, WIDTH), rule, metric)
        pictures.append(draw(objects, boxes, tiles, title))
    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    rows = [np.concatenate([pictures[i], gap, pictures[i + 1]], axis=1) for i in (0, 2)]
    line = np.full((8, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([rows[0], line, rows[1]])
    target = Path(__file__).with_name("seams.png")
    cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
