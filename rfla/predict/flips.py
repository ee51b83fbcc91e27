"""Test-time flips: a picture and its mirror images through one network, and one list of boxes.

Shapes: N detections of one picture. Boxes are xyxy px.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rfla.data.images import Image
from rfla.ops.nms import class_nms

Output = dict[str, Tensor]
Flip = tuple[bool, bool]  # left-right, up-down
FLIPS: tuple[Flip, ...] = ((False, False), (True, False), (False, True), (True, True))


def with_flips(
    pictures: Sequence[Image],
    detect: Callable[[Sequence[Image]], list[Output]],
    nms_iou: float,
    max_det: int,
) -> list[Output]:
    """Detect in pictures and their mirror images; keep the best of each object.

    Args:
        pictures: (H, W, 3) uint8, of one batch.
        detect: The network: for each picture boxes (N, 4), scores (N,), labels (N,).
        nms_iou: IoU above which the better of two boxes of one class stays, as in the network.
        max_det: Most boxes of a picture.
    """
    views = [
        [
            _unflipped(output, picture.shape, flip)
            for output, picture in zip(
                detect([flipped(picture, flip) for picture in pictures]), pictures, strict=True
            )
        ]
        for flip in FLIPS
    ]
    return [_merged(outputs, nms_iou, max_det) for outputs in zip(*views, strict=True)]


def flipped(picture: Image, flip: Flip) -> Image:
    """Return the mirror image of a picture."""
    left_right, up_down = flip
    rows, columns = (
        slice(None, None, -1 if up_down else 1),
        slice(None, None, -1 if left_right else 1),
    )
    return np.ascontiguousarray(picture[rows, columns])


def _unflipped(output: Output, shape: tuple[int, ...], flip: Flip) -> Output:
    """Return the detections of a mirror image in px of the picture."""
    x1, y1, x2, y2 = output["boxes"].unbind(dim=1)
    height, width = shape[:2]
    if flip[0]:
        x1, x2 = width - x2, width - x1
    if flip[1]:
        y1, y2 = height - y2, height - y1
    return output | {"boxes": torch.stack([x1, y1, x2, y2], dim=1)}


def _merged(outputs: Sequence[Output], nms_iou: float, max_det: int) -> Output:
    """Return the best boxes of all views, from high to low scores."""
    boxes, scores, labels = (
        torch.cat([output[key] for output in outputs]) for key in ("boxes", "scores", "labels")
    )
    kept = class_nms(boxes.float(), scores.float(), labels, nms_iou, max_det)
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
