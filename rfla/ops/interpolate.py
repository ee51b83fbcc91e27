"""Bilinear interpolation of maps at points.

Shapes: B images, M points of each, D channels, (H, W) of a map, N = B M points in all.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor
from torch.nn import functional


def interpolate(features: Tensor, points: Tensor) -> Tensor:
    """Read maps at points, as RoIAlign with one sample does (arXiv 1703.06870, section 3).

    What is read is a weighted sum of four rows of numbers. Summed as a bag of embeddings it and its
    gradient take a fifth of RoIAlign's time on a CPU, and on a GPU the gradient is added up in an
    order that does not change from run to run.

    Args:
        features: (B, D, H, W) float32.
        points: (B, M, 2) x and y in cells: (0, 0) is the middle of the first cell. They get no
            gradient. A NaN is 0.

    Returns:
        (B, M, D). From the middle of the last cell on a map goes on as it ends there, for one cell;
        beyond that it is 0.
    """
    batch, depth, height, width = features.shape
    points = torch.nan_to_num(points.detach())
    image = torch.arange(batch, device=points.device)[:, None]
    if torch.onnx.is_in_onnx_export():  # ONNX has RoIAlign, and would make a loop of the bags
        flat = points.flatten(0, 1)
        index = image.to(flat.dtype).expand(points.shape[:2]).reshape(-1, 1)
        rois = torch.cat([index, flat, flat + 1], dim=1)
        pooled: Tensor = torch.ops.torchvision.roi_align(features, rois, 1.0, 1, 1, 1, True)
        return pooled.view(*points.shape[:2], depth)
    (left, right), columns = _neighbours(points[..., 0], width)
    (above, below), rows = _neighbours(points[..., 1], height)
    cells = torch.stack([y * width + x for y in (above, below) for x in (left, right)], dim=-1)
    shares = (rows[..., :, None] * columns[..., None, :]).flatten(-2)  # (B, M, 4)
    out = functional.embedding_bag(
        (cells + (image * (height * width))[..., None]).view(-1, 4),
        features.permute(0, 2, 3, 1).reshape(-1, depth),  # (B H W, D)
        per_sample_weights=shares.view(-1, 4),
        mode="sum",
    )
    return out.view(*points.shape[:2], depth)


def _neighbours(position: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the two cells beside each position (B, M) on an axis, and their shares (B, M, 2)."""
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    cell = position.floor()
    share = position - cell
    before = cell.long()
    shares = torch.stack([1 - share, share], dim=-1) * inside[..., None]
    return (before, (before + 1).clamp(max=length - 1)), shares
