"""Images at the size of the network's input: the long side is `imgsz` px, the aspect is kept.

Shapes: images are (H, W, 3) uint8 RGB.
"""

import cv2
import numpy as np

from rfla.data.images import Image
from rfla.sizes import padded_side


def resize_long_side(image: Image, imgsz: int) -> tuple[Image, tuple[float, float]]:
    """Resize so that the long side is `imgsz` px, the aspect kept.

    As mmcv's `Resize(keep_ratio=True)`, with cv2's bilinear interpolation.

    Args:
        image: (H, W, 3) uint8.
        imgsz: Long side of the result, px.

    Returns:
        The image and `(sx, sy)`, output px per input px. They differ a little because both sides
        are rounded.
    """
    height, width = image.shape[:2]
    new_height, new_width = resized_shape(height, width, imgsz)
    if (new_height, new_width) == (height, width):
        return image, (1.0, 1.0)
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8), (new_width / width, new_height / height)


def resized_shape(height: int, width: int, imgsz: int) -> tuple[int, int]:
    """Return height and width that `resize_long_side` gives.

    The other side is rounded half up and is never under 1 px.
    """
    scale = imgsz / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def padded_shape(height: int, width: int, imgsz: int) -> tuple[int, int]:
    """Return height and width at the network's input, after resizing and padding."""
    rows, columns = resized_shape(height, width, imgsz)
    return padded_side(rows), padded_side(columns)
