"""Another input size for each batch (`multi_scale=`), made on the device from the batch at its usual size.

Shapes: B images of a batch, G boxes of one image, I ignore regions. Boxes are xyxy px.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

STRIDE = 32  # px: sizes are multiples of it


def scaled_size(imgsz: int, share: float, seeds: Sequence[int]) -> int:
    """Draw a long side in px within `share` of `imgsz`, a multiple of the stride.

    Args:
        imgsz: The usual long side in px.
        share: Largest change, 0.25 for 75 % to 125 %.
        seeds: Of the draw: run, epoch and batch, so that it is the same after a resume and in every
            process.
    """
    lowest, highest = round(imgsz * (1 - share) / STRIDE), round(imgsz * (1 + share) / STRIDE)
    drawn = np.random.default_rng(list(seeds)).integers(max(lowest, 1), max(highest, 1) + 1)
    return int(drawn) * STRIDE


def rescale(
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    targets: Sequence[dict[str, Tensor]],
    factor: float,
) -> tuple[Tensor, list[tuple[int, int]], list[dict[str, Tensor]]]:
    """Resize a batch and its boxes; the result is padded to multiples of the stride again.

    Args:
        images: (B, 3, H, W) normalised, zero where padded.
        sizes: (h, w) of each image before padding.
        targets: Boxes (G, 4), labels, ignore (I, 4) of each image.
        factor: New px for each old px.
    """
    height, width = (max(1, round(side * factor)) for side in images.shape[-2:])
    resized = functional.interpolate(images, (height, width), mode="bilinear", antialias=factor < 1)
    resized = functional.pad(resized, (0, -width % STRIDE, 0, -height % STRIDE))
    ratios = (width / images.shape[-1], height / images.shape[-2])
    scale = torch.tensor(ratios * 2, dtype=images.dtype).to(images.device, non_blocking=True)
    moved = [
        target | {key: target[key] * scale for key in ("boxes", "ignore") if key in target}
        for target in targets
    ]
    new_sizes = [(min(height, round(h * factor)), min(width, round(w * factor))) for h, w in sizes]
    return resized, new_sizes, moved
