"""Picture of an assignment: boxes, positive points and their fields on a piece of an image.

Shapes: G boxes, K positives of one image; boxes and fields are xyxy in px of the image.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from rfla.errors import counted
from rfla.pictures.boxes import EDGE, PALETTE, Array, enlarge
from rfla.pictures.text import put_text, text_size

WINDOW = 112  # px of the image that are shown
FACTOR = 8  # by which they are enlarged
BOX_COLOUR = (255, 255, 255)
LEVEL_COLOURS = tuple(PALETTE[i] for i in (1, 2, 6, 4, 5, 3))  # finest level first


def draw_assignment(
    image: Array, boxes: Array, fields: Array, levels: Array, strides: Sequence[int]
) -> Array:
    """Return the piece of `image` with most boxes, enlarged and drawn on.

    A field is drawn as the ellipse of one standard deviation, half its side (RFLA, section 3.1).

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4), drawn as white frames.
        fields: (K, 4) the positive priors; their points are their centres.
        levels: (K,) level of each, from 0, which chooses its colour.
        strides: Px between the points of each level, for the legend.
    """
    origin = _crowded_window(image.shape[:2], boxes)
    left, top = origin[:2]
    canvas = enlarge(image[top : top + WINDOW, left : left + WINDOW], FACTOR)
    # All dark edges first, so that none covers the frame of a neighbour.
    for colour, width in ((EDGE, 3), (BOX_COLOUR, 1)):
        for x1, y1, x2, y2 in np.rint((boxes - origin) * FACTOR).astype(int).tolist():
            cv2.rectangle(canvas, (x1 - 2, y1 - 2), (x2 + 1, y2 + 1), colour, width)

    on_canvas = (fields - origin) * FACTOR
    centers = np.rint((on_canvas[:, :2] + on_canvas[:, 2:]) / 2).astype(int).tolist()
    half_sides = np.rint((on_canvas[:, 2:] - on_canvas[:, :2]) / 2).astype(int).tolist()
    colours = [LEVEL_COLOURS[int(level) % len(LEVEL_COLOURS)] for level in levels]

    # Fields overlap by dozens: let what lies below show through their lines, and put points on top.
    with_fields = canvas.copy()
    for center, half, colour in zip(centers, half_sides, colours, strict=True):
        cv2.ellipse(with_fields, center, half, 0, 0, 360, colour, 1, cv2.LINE_AA)
    canvas = cv2.addWeighted(with_fields, 0.7, canvas, 0.3, 0)
    for center, colour in zip(centers, colours, strict=True):
        cv2.circle(canvas, center, 6, EDGE, -1, cv2.LINE_AA)
        cv2.circle(canvas, center, 4, colour, -1, cv2.LINE_AA)
    inside = [0 <= x < canvas.shape[1] and 0 <= y < canvas.shape[0] for x, y in centers]
    shown = np.asarray(levels)[np.array(inside, bool)]  # the legend counts what can be seen
    return np.concatenate([canvas, _legend(canvas.shape[1], shown, strides)])


def _crowded_window(shape: tuple[int, ...], boxes: Array) -> Array:
    """(4,) corner x, y, x, y of the window with most box centres, of those round one of them."""
    height, width = shape
    limit = np.maximum([width - WINDOW, height - WINDOW], 0)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2  # (G, 2)
    corners = np.clip(centers - WINDOW / 2, 0, limit).astype(int)  # (G, 2)
    low = corners[:, None]  # (G, 1, 2) against (1, G, 2)
    inside = (centers[None] >= low) & (centers[None] < low + WINDOW)  # (G, G, 2)
    number = inside.all(axis=2).sum(axis=1)  # (G,) centres in the window round each box
    return np.tile(corners[int(number.argmax())], 2)


def _legend(width: int, levels: Array, strides: Sequence[int]) -> Array:
    """A strip with the colour of boxes, and the colour and number of points of each stride."""
    strip = np.full((24, width, 3), 24, dtype=np.uint8)
    entries = [("boxes", BOX_COLOUR)]
    for level, stride in enumerate(strides):
        count = int((np.asarray(levels) == level).sum())
        if count:
            colour = LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
            entries.append((f"stride {stride}: {counted(count, 'point')}", colour))
    x = 8
    for text, colour in entries:
        cv2.circle(strip, (x + 4, 12), 4, colour, -1, cv2.LINE_AA)
        put_text(strip, text, (x + 14, 16), 0.42, (230, 230, 230))
        x += text_size(text, 0.42).width + 34
    return strip
