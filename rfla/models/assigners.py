"""Label assigners from the configuration, for detectors with points and with anchors.

Shapes: B images, P priors over all levels.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from rfla.assign import (
    ATSSAssigner,
    HierarchicalAssigner,
    MaxIoUAssigner,
    PointsAssigner,
    PriorGrid,
)
from rfla.cfg.model_schema import AnchorConfig, AssignerConfig

FIRST_END, NO_END = 64.0, 1e8  # px: the distances that the first and the last level of FCOS end at


class Assigner(Protocol):
    """What a head asks of its assigner."""

    def batch(
        self,
        grid: PriorGrid,
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """(B, P) int64: index of the box, -1 background, -2 ignored."""


def build_assigner(section: AssignerConfig, baseline: Assigner | None) -> Assigner | None:
    """The assigner that a detector is configured with.

    Args:
        section: of the configuration.
        baseline: the detector's own rule; None where its boxes choose as they learn.
    """
    if section.name == "baseline":
        return baseline
    if section.name == "atss":
        return ATSSAssigner(topk=section.atss_topk)
    return HierarchicalAssigner(
        distance=section.distance,
        topk=section.topk,
        decay=section.decay,
        centers_inside=section.centers_inside,
        ignore_above=section.ignore_above,
        conflict=section.conflict,
    )


def points_baseline(section: AssignerConfig, levels: int) -> PointsAssigner:
    """FCOS's own assignment rule for `levels` pyramid levels."""
    return PointsAssigner(_regress_ranges(levels), center_radius=section.center_radius)


def anchors_baseline(section: AnchorConfig) -> MaxIoUAssigner:
    """The rule by IoU for anchors."""
    return MaxIoUAssigner(
        section.pos_iou, section.neg_iou, section.min_pos_iou, match_low_quality=True
    )


def _regress_ranges(levels: int) -> list[tuple[float, float]]:
    """The (lowest, highest) distance that each level learns, as in FCOS, for any number of levels.

    Each level of FCOS ends at twice the distance of the one before, and the last one has no end.
    """
    ends = [FIRST_END * 2.0**level for level in range(levels - 1)]
    return list(zip([-1.0, *ends], [*ends, NO_END], strict=True))
