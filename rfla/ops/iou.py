"""Intersection over union without a gradient.

Shapes: K boxes, M boxes of all images together, B images. Boxes are xyxy.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

PAIRS_AT_A_TIME = 4_000_000


@torch.no_grad()
def best_iou(boxes: Tensor, image: Tensor, truth: Tensor, counts: list[int]) -> Tensor:
    """Best IoU of each box with the true boxes of its image.

    Args:
        boxes: (K, 4).
        image: (K,) int64, the image of each.
        truth: (M, 4), image by image.
        counts: true boxes of each image.

    Returns:
        (K,) float32; 0 where an image has none.
    """
    best = boxes.new_zeros(len(boxes))
    for index, own in enumerate(torch.split(truth, counts)):
        rows = torch.nonzero(image == index).squeeze(1)
        if not len(own) or not len(rows):
            continue
        for part in torch.split(rows, max(1, PAIRS_AT_A_TIME // len(own))):
            best[part] = box_iou(boxes[part], own).nan_to_num(0.0).amax(dim=1)
    return best
