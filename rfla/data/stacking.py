"""Images of several sizes as one batch, padded with zeros on the right and at the bottom.

Shapes: B images, each (h, w, 3) uint8; a batch is (B, 3, H, W).
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfla.sizes import padded_side


def stack_images(
    images: Sequence[NDArray[np.uint8]], least: int = 1, *, pinned: bool = False
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Make one batch of images; H and W are multiples of `STRIDE`.

    Args:
        images: Each (h, w, 3) uint8.
        least: H and W are at least this, px.
        pinned: In page-locked memory, so that the host need not wait for a copy to a GPU.

    Returns:
        (B, 3, H, W) uint8, and the sizes (h, w) of the images, px.
    """
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (padded_side(max([least, *(size[axis] for size in sizes)])) for axis in (0, 1))
    # Not zeros: `_fill` writes each px once, the padding too.
    shape = (len(images), 3, height, width)
    batch = torch.empty(shape, dtype=torch.uint8, device="cpu", pin_memory=pinned)
    for planes, image in zip(batch.numpy(), images, strict=True):
        _fill(planes, image)
    return batch, sizes


def _fill(planes: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Write an (h, w, 3) image into (3, H, W) planes, zeros right of it and below.

    OpenCV parts channels fastest. It takes no mirrored view.
    """
    height, width = image.shape[:2]
    whole = np.ascontiguousarray(image)
    cv2.mixChannels([whole], [plane[:height, :width] for plane in planes], [0, 0, 1, 1, 2, 2])
    planes[:, height:] = 0
    planes[:, :height, width:] = 0
