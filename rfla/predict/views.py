"""Test-time views: a picture, its mirror images and other sizes of it, and one list of boxes.

Shapes: N detections of one picture. Boxes are xyxy px.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rfla.data.images import Image
from rfla.names import ViewsName
from rfla.ops.nms import class_nms

Output = dict[str, Tensor]


class View(NamedTuple):
    """One way to look at a picture.

    Attributes:
        left_right: Mirrored.
        up_down: The same, the other way.
        scale: Size in the network, as a multiple of the usual one.
    """

    left_right: bool = False
    up_down: bool = False
    scale: float = 1.0


PLAIN = (View(),)
FLIPS = (View(), View(left_right=True), View(up_down=True), View(True, True))
OTHER_SIZES = (View(scale=0.8), View(scale=1.25))
# By `tta=`. Both is the mirror images and the other sizes of the picture itself, not of each one.
VIEWS: Mapping[bool | ViewsName, tuple[View, ...]] = {
    False: PLAIN,
    "flips": FLIPS,
    "scales": PLAIN + OTHER_SIZES,
    True: FLIPS + OTHER_SIZES,
}


def through_views(
    pictures: Sequence[Image],
    detect: Callable[[Sequence[Image], float], list[Output]],
    views: Sequence[View],
    nms_iou: float,
    max_det: int,
) -> list[Output]:
    """Detect in several views of pictures; keep the best of each object.

    Args:
        pictures: (H, W, 3) uint8, of one batch.
        detect: The network at a scale: for each picture boxes (N, 4) px of the picture, scores
            (N,), labels (N,).
        views: What to look at.
        nms_iou: IoU above which the better of two boxes of one class stays, as in the network.
        max_det: Most boxes of a picture.
    """
    if tuple(views) == PLAIN:
        return detect(pictures, 1.0)
    seen = [
        [
            _unflipped(output, picture.shape, view)
            for output, picture in zip(
                detect([flipped(picture, view) for picture in pictures], view.scale),
                pictures,
                strict=True,
            )
        ]
        for view in views
    ]
    return [_merged(outputs, nms_iou, max_det) for outputs in zip(*seen, strict=True)]


def flipped(picture: Image, view: View) -> Image:
    """Return the mirror image of a picture that a view looks at."""
    rows, columns = (
        slice(None, None, -1 if view.up_down else 1),
        slice(None, None, -1 if view.left_right else 1),
    )
    return np.ascontiguousarray(picture[rows, columns])


def _unflipped(output: Output, shape: tuple[int, ...], view: View) -> Output:
    """Return the detections of a mirror image in px of the picture."""
    x1, y1, x2, y2 = output["boxes"].unbind(dim=1)
    height, width = shape[:2]
    if view.left_right:
        x1, x2 = width - x2, width - x1
    if view.up_down:
        y1, y2 = height - y2, height - y1
    return output | {"boxes": torch.stack([x1, y1, x2, y2], dim=1)}


def _merged(outputs: Sequence[Output], nms_iou: float, max_det: int) -> Output:
    """Return the best boxes of all views, from high to low scores."""
    boxes, scores, labels = (
        torch.cat([output[key] for output in outputs]) for key in ("boxes", "scores", "labels")
    )
    kept = class_nms(boxes.float(), scores.float(), labels, nms_iou, max_det)
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
