"""Boxes on images, drawn so that hundreds of 6-pixel objects stay visible.

Small images are enlarged by a whole factor first (nearest neighbour: a pixel stays a pixel), lines
are thin, run round the object and not over it, and have a dark edge on their outer side, so that
they show on pale ground too. Names are left out where they would cover what they name.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rfla.errors import RflaError
from rfla.files import write_atomically
from rfla.pictures.text import put_text, short_names, text_size

Array = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # of pictures to write

# Twelve colours (RGB), all light enough for a dark edge to set them off on any ground.
PALETTE = (
    (255, 64, 64), (64, 220, 255), (255, 210, 0), (190, 120, 255),
    (80, 255, 120), (255, 140, 30), (255, 110, 200), (90, 140, 255),
    (200, 255, 60), (0, 200, 170), (255, 190, 160), (230, 230, 230),
)  # fmt: skip
IGNORED = (150, 150, 150)  # regions that are neither object nor background
EDGE = (16, 16, 16)  # the dark side of lines, dots and names
LONG_SIDE = 1000  # px: smaller pictures are enlarged to about this
MAX_FACTOR = 6
MAX_NAMES = 60  # boxes in an image, beyond which names would cover them
MIN_NAMED_SIDE = 16  # px of the image, median of its boxes
LEGEND_HEIGHT = 28  # px
GAP = 6  # px between pictures of a sheet
LEGEND_SCALE = 0.55  # of the font: a sheet of four pictures is seen at half its size
NAME_SCALE = 0.4  # of the font


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class, grey for -1."""
    return PALETTE[label % len(PALETTE)] if label >= 0 else IGNORED


def name_of(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, `(ignored)` for -1."""
    return names[label] if label >= 0 else "(ignored)"


def zoom_factor(height: int, width: int) -> int:
    """Return the whole factor by which a picture is enlarged."""
    return max(1, min(MAX_FACTOR, round(LONG_SIDE / max(height, width, 1))))


def enlarge(image: Array, factor: int) -> Array:
    """Return a copy of an (H, W, 3) image with every pixel repeated `factor` times each way."""
    return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))


def fit_into(picture: Array, shape: tuple[int, int], side: int) -> tuple[Array, float]:
    """Resize a picture to the size of what it shows, or smaller where a side exceeds `side` px.

    Args:
        picture: (h, w, ...) uint8, in any size.
        shape: Height and width of what it shows, px.
        side: The longest that a side may be, px.

    Returns:
        The picture, and its px for each px of what it shows, at most 1.
    """
    height, width = shape
    scale = min(side / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def draw_boxes(
    image: Array,
    boxes: Array,
    labels: Array,
    names: Sequence[str],
    scores: Array | None = None,
    line_width: int | None = None,
    show_labels: bool | None = None,
    points: tuple[Array, Array] | None = None,
    note: str = "",
    *,
    legend: bool = True,
    factor: int | None = None,
) -> Array:
    """Return an enlarged copy of `image` with boxes, and a legend of the classes in it.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy px.
        labels: (N,) class indices, -1 for a region that is ignored.
        names: Class names.
        scores: (N,) scores, written beside the names.
        line_width: In px of the result, without the dark edge of 1 px; by default 1, or 2 where the
            image is enlarged or the median side of the boxes is over 24 px.
        show_labels: Write the name at each box, if need be over others; by default only for few and
            not too small boxes, and only where there is room.
        points: (K, 2) px and (K,) index of the box that each belongs to; drawn as dots in the box's
            colour.
        note: Written behind the legend.
        legend: Add the strip with the legend below.
        factor: Whole factor of enlargement; by default by the size of the image.
    """
    factor = factor or zoom_factor(*image.shape[:2])
    canvas = enlarge(image, factor)
    median_side = _median_side(boxes)
    width = line_width or (2 if factor > 1 or median_side > 24 else 1)
    few = 0 < len(boxes) <= MAX_NAMES and median_side >= MIN_NAMED_SIDE
    # Weak detections first, so that where boxes touch the strong one is on top.
    order = np.argsort(scores, kind="stable") if scores is not None else np.arange(len(boxes))
    corners = np.rint(np.clip(np.asarray(boxes, np.float64) * factor, -1e6, 1e6)).astype(np.int64)

    # All dark edges before all lines, so that no edge covers the line of a neighbour.
    for i in order:
        _draw_frame(canvas, corners[i], width + 1, EDGE)
    for i in order:
        for distance in range(1, width + 1):
            _draw_frame(canvas, corners[i], distance, colour_of(int(labels[i])))
    if few if show_labels is None else show_labels:
        texts = [
            name_of(int(label), names) + ("" if scores is None else f" {scores[i]:.2f}")
            for i, label in enumerate(labels)
        ]
        frames = corners + np.array([-1, -1, 1, 1]) * (width + 1)
        colours = [colour_of(int(label)) for label in labels]
        _write_names(canvas, texts, colours, frames, order[::-1], force=show_labels is True)
    if points is not None:
        _draw_points(canvas, points[0] * factor, np.asarray(labels)[points[1]])
        note = f"dots: the {len(points[0])} positives"
    return add_legend(canvas, labels, names, note) if legend else canvas


def _median_side(boxes: Array) -> float:
    """Return the median root of the area of (N, 4) boxes, px; 0 without boxes."""
    if not len(boxes):
        return 0.0
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)  # (N, 2)
    return float(np.median(np.sqrt(np.prod(sides, axis=1))))


def _draw_points(canvas: Array, points: Array, labels: Array) -> None:
    """Draw a dot with a dark edge at each of the points (K, 2), in the colour of its class."""
    for (x, y), label in zip(points, labels, strict=True):
        center = (round(float(x)), round(float(y)))
        cv2.circle(canvas, center, 4, EDGE, -1, cv2.LINE_AA)
        cv2.circle(canvas, center, 3, colour_of(int(label)), -1, cv2.LINE_AA)


def _draw_frame(canvas: Array, box: Array, distance: int, colour: tuple[int, int, int]) -> None:
    """Draw a line 1 px wide round a box (4,) in px of the canvas.

    At a distance of 1 it touches the object.
    """
    x1, y1, x2, y2 = (int(value) for value in box)
    top_left = (x1 - distance, y1 - distance)
    bottom_right = (x2 + distance - 1, y2 + distance - 1)
    cv2.rectangle(canvas, top_left, bottom_right, colour, 1)


def _write_names(
    canvas: Array,
    texts: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    frames: Array,
    order: Iterable[int],
    force: bool,
) -> None:
    """Write a name at each box, on a dark tag that covers neither a box nor another tag.

    Args:
        canvas: Written on.
        texts: N names.
        colours: N colours.
        frames: (N, 4) xyxy px of the boxes with their lines.
        order: Who chooses first.
        force: Write the name above its box where there is no room; else leave it out.
    """
    taken = np.zeros((4, 2 * len(frames)), np.int64)  # columns: a row of numbers is compared fast
    taken[:, : len(frames)] = frames.T
    used = len(frames)
    for i in order:
        wide, letters, base = text_size(texts[i], NAME_SCALE)
        size = (wide + 6, letters + base + 2)
        tag = _free_place(frames[i], size, canvas.shape, taken[:, :used])
        if tag is None and not force:
            continue
        if tag is None:
            tag = _places(frames[i], size, canvas.shape)[0]
        taken[:, used] = tag
        used += 1
        x1, y1, x2, y2 = tag.tolist()
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), EDGE, -1)
        put_text(canvas, texts[i], (x1 + 3, y2 - base), NAME_SCALE, colours[i])


def _free_place(
    frame: Array, size: tuple[int, int], shape: tuple[int, ...], taken: Array
) -> Array | None:
    """Return the first place (4,) of a tag at a box that meets nothing in `taken` (4, K)."""
    left, top, right, bottom = taken
    for tag in _places(frame, size, shape):
        x1, y1, x2, y2 = tag
        if not ((left < x2) & (right > x1) & (top < y2) & (bottom > y1)).any():
            return tag
    return None


def _places(frame: Array, size: tuple[int, int], shape: tuple[int, ...]) -> list[Array]:
    """Return where a tag of some width and height may lie: above a box, below, right, left of it.

    Kept inside the picture, so that some of them may lie on the box.
    """
    (x1, y1, x2, y2), (wide, high) = frame.tolist(), size
    corners = np.array([(x1, y1 - high), (x1, y2), (x2, y1), (x1 - wide, y1)])
    corners = np.clip(corners, 0, np.maximum([shape[1] - wide, shape[0] - high], 0))
    return [np.concatenate([corner, corner + size]) for corner in corners]


def add_legend(canvas: Array, labels: Array, names: Sequence[str], note: str = "") -> Array:
    """Return the canvas with a strip below it.

    It has a square, the name and the number of boxes of each class that is present, then the note.
    Where there is no room for all classes, the rarest are left out.
    """
    width = canvas.shape[1]
    strip = np.full((LEGEND_HEIGHT, width, 3), 24, dtype=np.uint8)
    note_width = _text_width(note) + 12 if note else 0
    # A note goes before rare classes, unless it would take most of the strip.
    x = _write_classes(strip, width - (note_width if 2 * note_width < width else 0), labels, names)
    if note and x + note_width < width:
        _write_in_legend(strip, note, x + 6, grey=160)
    return np.concatenate([canvas, strip])


def _write_classes(strip: Array, width: int, labels: Array, names: Sequence[str]) -> int:
    """Write the classes into the first `width` px of a legend; returns where they end."""
    present, counts = np.unique(np.asarray(labels, dtype=np.int64), return_counts=True)
    x = 6
    if not len(present):
        _write_in_legend(strip, "no boxes", x, grey=160)
        return x + _text_width("no boxes") + 20
    order = np.lexsort((-counts, present < 0))  # the most frequent first, ignored regions last
    dots = _text_width("...") + 6
    shown = present[order].tolist()
    short = short_names([name_of(label, names) for label in shown])
    classes = zip(shown, short, counts[order].tolist(), strict=True)
    for number, (label, name, count) in enumerate(classes, start=1):
        text = f"{name} {count}"
        # Behind every class but the last there is room for the dots.
        if x + _text_width(text) + (26 if number == len(order) else 36 + dots) > width:
            _write_in_legend(strip, "...", x)
            return x + dots
        cv2.rectangle(strip, (x, 8), (x + 11, 19), colour_of(label), -1)
        _write_in_legend(strip, text, x + 18)
        x += _text_width(text) + 36
    return x


def _text_width(text: str) -> int:
    return text_size(text, LEGEND_SCALE).width


def _write_in_legend(strip: Array, text: str, x: int, grey: int = 230) -> None:
    put_text(strip, text, (x, 19), LEGEND_SCALE, (grey, grey, grey))


def tile_pictures(pictures: Sequence[Array], columns: int = 2) -> Array:
    """Return one picture with several in a grid, on a dark ground, each in its top left corner.

    Columns are as wide as the widest picture, rows as high as their highest.
    """
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    width = max(picture.shape[1] for picture in pictures)
    shape = (sum(heights) + GAP * (len(rows) - 1), columns * (width + GAP) - GAP, 3)
    sheet = np.full(shape, 12, dtype=np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for i, picture in enumerate(row):
            left = i * (width + GAP)
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += height + GAP
    return sheet


def write_picture(path: Path, picture: Array) -> None:
    """Write an RGB picture, whole or not at all; the suffix of `path` chooses the format.

    Raises:
        RflaError: The suffix is none of `SUFFIXES`, or its format holds no picture of that size.
        OSError: The file cannot be written.
    """
    suffix = path.suffix.lower() or SUFFIXES[0]
    if suffix not in SUFFIXES:
        raise RflaError(
            f"{path}: no pictures are written as {suffix}; a suffix is one of {', '.join(SUFFIXES)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:  # a side of a JPEG has 65,500 px at most, of a WebP 16,383
        height, width = picture.shape[:2]
        raise RflaError(f"{path}: {suffix} holds no picture of {width} x {height} px")
    write_atomically(path, data.tobytes(), flush=False)
