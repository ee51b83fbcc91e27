"""From pixels to the network's input, on the device of the pixels.

Shapes: B images, (H, W) px.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.names import Channels


def normalize_images(
    images: Tensor,
    image_sizes: Sequence[tuple[int, int]] | None,
    mean: Sequence[float],
    std: Sequence[float],
    channels: Channels = "rgb",
) -> Tensor:
    """(pixel - mean) / std, in the channel order of the network.

    The padding of each image becomes 0.

    Args:
        images: (B, 3, H, W) uint8 or float, RGB, from 0 to 255.
        image_sizes: (height, width) of each image before padding; None where nothing is padded.
        mean: three numbers in the order of `channels`.
        std: three numbers in the order of `channels`.
        channels: what the network wants.

    Returns:
        (B, 3, H, W) float32.
    """
    pixels = images.float()
    if channels == "bgr":
        pixels = pixels.flip(1)
    shift = (
        torch.tensor(mean, dtype=torch.float32).to(images.device, non_blocking=True).view(3, 1, 1)
    )
    scale = (
        torch.tensor(std, dtype=torch.float32).to(images.device, non_blocking=True).view(3, 1, 1)
    )
    pixels = (pixels - shift) / scale
    if image_sizes is None:
        return pixels
    full_height, full_width = images.shape[-2:]
    for image, (height, width) in zip(pixels, image_sizes, strict=True):
        if height < full_height:
            image[:, height:] = 0
        if width < full_width:
            image[:, :, width:] = 0
    return pixels
