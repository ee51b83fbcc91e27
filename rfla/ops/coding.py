"""Boxes as offsets from priors, the regression targets of anchor heads and RoI heads.

Shapes: N boxes, K boxes predicted for each prior (1, or one a class). Boxes are xyxy in px of
the network input.
Source: Girshick et al., "Rich feature hierarchies" (2014), appendix C, with the normalisation of
Fast R-CNN.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.ops.device import to_device

MAX_LOG_RATIO = math.log(1000 / 16)
"""Largest growth of a side in one decoding (62.5 times), so that exp() cannot overflow."""
MIN_SIDE = 1e-3
"""px; a shorter side counts as this long in an encoding, so that its logarithm stays finite."""


class DeltaCoder:
    """Encode boxes as (dx, dy, log dw, log dh) from their priors, in units of `stds`.

    Args:
        stds: deviations that bring the targets to about unit size, in the same order.
    """

    def __init__(self, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        self.stds = tuple(stds)
        self._on_device: dict[torch.device, Tensor] = {}

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Return the offsets that lead from `priors` to `boxes`.

        Args:
            priors: (..., 4) xyxy.
            boxes: (..., 4) xyxy.

        Returns:
            (..., 4) float32 offsets.
        """
        prior_centers, prior_sizes = _centers_and_sizes(priors.float())
        centers, sizes = _centers_and_sizes(boxes.float())
        prior_sizes, sizes = prior_sizes.clamp(min=MIN_SIDE), sizes.clamp(min=MIN_SIDE)
        offsets = (centers - prior_centers) / prior_sizes
        deltas = torch.cat([offsets, torch.log(sizes / prior_sizes)], dim=-1)
        return deltas / self._stds_on(deltas.device)

    def decode(self, priors: Tensor, deltas: Tensor, image_sizes: Tensor | None = None) -> Tensor:
        """Apply offsets to priors.

        Args:
            priors: (..., 4) xyxy.
            deltas: (..., 4) or (..., K * 4) offsets, K boxes for each prior.
            image_sizes: Clip boxes to these (height, width) in px: a tensor of shape (2,) for all,
                or one that broadcasts against the leading dimensions of `priors`, such as (B, 1,
                2). None does not clip.

        Returns:
            Boxes xyxy, float32, in the shape of `deltas`.
        """
        shape = deltas.shape
        deltas = deltas.float().reshape(*shape[:-1], shape[-1] // 4, 4)  # (..., K, 4)
        deltas = deltas * self._stds_on(deltas.device)
        prior_centers, prior_sizes = (
            part.unsqueeze(-2) for part in _centers_and_sizes(priors.float())
        )  # (..., 1, 2)
        centers = prior_centers + prior_sizes * deltas[..., :2]
        sizes = prior_sizes * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        low, high = centers - sizes * 0.5, centers + sizes * 0.5
        if image_sizes is not None:
            limits = image_sizes.to(low).flip(-1).unsqueeze(-2)  # (..., 1, 2) width, height
            low, high = (torch.minimum(corner.clamp(min=0), limits) for corner in (low, high))
        return torch.cat([low, high], dim=-1).reshape(shape)

    def _stds_on(self, device: torch.device) -> Tensor:
        """The deviations (4,) on a device; copied there once, since a copy makes the host wait."""
        if device not in self._on_device:
            with torch.inference_mode(False):  # validation may come first, training needs it too
                self._on_device[device] = to_device(self.stds, device)
        return self._on_device[device]


MIN_LOG_SIDE, MAX_LOG_SIDE = -6.0, 4.0
"""Range of a coded side: from 1/400 of the field, far below a pixel, to 55 times the field."""


class FieldCoder:
    """Encode boxes as signed offsets from feature points and sides against their receptive fields.

    The code is (dx / stride, dy / stride, ln(w / r), ln(h / r)) with the offset of the box's centre
    from the point and the side r of the point's effective field. Any point can describe any box,
    also one that it lies outside of. Distances to the four sides, which are never negative, cannot:
    with RFLA most positive points of boxes under 4 px lie outside their box.

    Args:
        centers: (P, 2) x, y of the points, px.
        strides: (P, 1) px between the points of each one's level.
        fields: (P, 1) side of each one's effective receptive field, px.
    """

    def __init__(self, centers: Tensor, strides: Tensor, fields: Tensor) -> None:
        self.centers, self.strides, self.fields = centers, strides, fields

    def encode(self, boxes: Tensor) -> Tensor:
        """(..., P, 4) xyxy px, one box for each point, to its code, float32."""
        centers, sizes = _centers_and_sizes(boxes.float())
        offsets = (centers - self.centers) / self.strides
        sides = torch.log(sizes.clamp(min=MIN_SIDE) / self.fields)
        return torch.cat([offsets, sides], dim=-1)

    def decode(self, code: Tensor) -> Tensor:
        """(..., P, 4) code of each point to boxes xyxy px, float32."""
        code = code.float()
        centers = self.centers + self.strides * code[..., :2]
        half = 0.5 * self.fields * code[..., 2:].clamp(MIN_LOG_SIDE, MAX_LOG_SIDE).exp()
        return torch.cat([centers - half, centers + half], dim=-1)

    def side_errors(self, code: Tensor, boxes: Tensor) -> Tensor:
        """(..., P) mean error of the two coded sides against those of the boxes.

        GIoU hardly sees a side that is 1 px off on a 3 px box; its logarithm does.
        """
        return (code.float() - self.encode(boxes))[..., 2:].abs().mean(dim=-1)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split (..., 4) xyxy boxes into (..., 2) centres and (..., 2) sides."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low
