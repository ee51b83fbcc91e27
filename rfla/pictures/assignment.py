"""Who learns which box: positive points with the fields that they see, on a piece of an image.

Shapes: G boxes, K positives of one image; boxes and fields are xyxy in px of the image.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from rfla.pictures.boxes import EDGE, FONT, PALETTE, Array, enlarge

WINDOW = 112  # px of the image that are shown
FACTOR = 8
BOX = (255, 255, 255)
LEVELS = (
    PALETTE[1],
    PALETTE[2],
    PALETTE[6],
    PALETTE[4],
    PALETTE[5],
    PALETTE[3],
)  # by level, finest first


def draw_assignment(
    image: Array, boxes: Array, fields: Array, levels: Array, strides: Sequence[int]
) -> Array:
    """Return the piece of `image` with most boxes, enlarged: boxes, positive points and their effective fields.

    A field is drawn as the ellipse of one standard deviation, half its side (RFLA, section 3.1).

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4), drawn as white frames.
        fields: (K, 4) the priors that learn a box; the point is the centre.
        levels: (K,) level of each, from 0.
        strides: Px between the points of each level, for the legend.
    """
    origin = _crowded_window(image.shape[:2], boxes)
    left, top = origin[:2]
    canvas = enlarge(image[top : top + WINDOW, left : left + WINDOW], FACTOR)
    for colour, width in ((EDGE, 3), (BOX, 1)):
        for x1, y1, x2, y2 in np.rint((boxes - origin) * FACTOR).astype(int).tolist():
            cv2.rectangle(canvas, (x1 - 2, y1 - 2), (x2 + 1, y2 + 1), colour, width)
    moved = (fields - origin) * FACTOR
    centres = np.rint((moved[:, :2] + moved[:, 2:]) / 2).astype(int).tolist()
    halves = np.rint((moved[:, 2:] - moved[:, :2]) / 2).astype(int).tolist()
    colours = [LEVELS[int(level) % len(LEVELS)] for level in levels]
    with_fields = canvas.copy()
    for centre, half, colour in zip(centres, halves, colours, strict=True):
        cv2.ellipse(with_fields, centre, half, 0, 0, 360, colour, 1, cv2.LINE_AA)
    canvas = cv2.addWeighted(with_fields, 0.7, canvas, 0.3, 0)
    for centre, colour in zip(centres, colours, strict=True):
        cv2.circle(canvas, centre, 6, EDGE, -1, cv2.LINE_AA)
        cv2.circle(canvas, centre, 4, colour, -1, cv2.LINE_AA)
    return np.concatenate([canvas, _legend(canvas.shape[1], levels, strides)])


def _crowded_window(shape: tuple[int, ...], boxes: Array) -> Array:
    """(4,) x, y, x, y of the corner of the window that holds most box centres, of those round a box centre."""
    height, width = shape
    limit = np.maximum([width - WINDOW, height - WINDOW], 0)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    corners = np.clip(centres - WINDOW / 2, 0, limit).astype(int)  # (G, 2)
    inside = (centres[None] >= corners[:, None]) & (
        centres[None] < corners[:, None] + WINDOW
    )  # (G, G, 2)
    return np.tile(corners[int(inside.all(axis=2).sum(axis=1).argmax())], 2)


def _legend(width: int, levels: Array, strides: Sequence[int]) -> Array:
    """A strip: what the marks mean, and the colour and count of each stride in the whole image."""
    strip = np.full((24, width, 3), 24, dtype=np.uint8)
    entries = [("boxes", BOX)]
    for level, stride in enumerate(strides):
        count = int((np.asarray(levels) == level).sum())
        if count:
            entries.append((f"stride {stride}: {count} points", LEVELS[level % len(LEVELS)]))
    x = 8
    for text, colour in entries:
        cv2.circle(strip, (x + 4, 12), 4, colour, -1, cv2.LINE_AA)
        cv2.putText(strip, text, (x + 14, 16), FONT, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, FONT, 0.42, 1)[0][0] + 34
    return strip
