"""Report of an assignment: positives per box and size, boxes without any, conflicts, levels.

Shapes: G boxes, P priors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND, IGNORED
from rfla.assign.candidates import Candidates
from rfla.assign.prior_grid import PriorGrid
from rfla.errors import counted
from rfla.sizes import SIZE_BINS


@dataclass(frozen=True)
class SizeBin:
    """The boxes of one size range.

    Attributes:
        name: The range in words, px of sqrt(area).
        boxes: How many boxes are in it.
        positives: Positive priors of them all.
        without: Boxes without a positive prior.
    """

    name: str
    boxes: int
    positives: int
    without: int

    @property
    def mean(self) -> float:
        """Positives of a box on average; 0 without boxes."""
        return self.positives / self.boxes if self.boxes else 0.0


@dataclass(frozen=True)
class AssignmentReport:
    """What one or several images look like to an assigner.

    Attributes:
        images: Number of images.
        positives: Positives of each box, image after image.
        sizes: Root of the area of each box in px.
        conflicts: Priors that several boxes of an image wanted in the same stage.
        level_strides: Stride of each level.
        level_positives: Positives on each level.
        background: Background priors.
        ignored: Ignored priors.
    """

    images: int
    positives: tuple[int, ...]
    sizes: tuple[float, ...]
    conflicts: int
    level_strides: tuple[int, ...]
    level_positives: tuple[int, ...]
    background: int
    ignored: int

    @property
    def without_positive(self) -> tuple[int, ...]:
        """Indices of the boxes that have no positive."""
        return tuple(index for index, count in enumerate(self.positives) if count == 0)

    @property
    def histogram(self) -> dict[int, int]:
        """Number of positives -> number of boxes that have this many."""
        return {count: self.positives.count(count) for count in sorted(set(self.positives))}

    @property
    def size_bins(self) -> tuple[SizeBin, ...]:
        """The boxes by size."""
        bins = []
        for name, low, high in SIZE_BINS:
            counts = [
                count
                for count, size in zip(self.positives, self.sizes, strict=True)
                if low <= size < high
            ]
            bins.append(SizeBin(name, len(counts), sum(counts), counts.count(0)))
        return tuple(bins)

    @classmethod
    def merge(cls, reports: Iterable["AssignmentReport"]) -> "AssignmentReport":
        """The report of a data set, from those of its images on grids of the same levels.

        Raises:
            ValueError: No reports, or reports of different numbers of levels.
        """
        parts = list(reports)
        if not parts:
            raise ValueError("no reports to merge")
        levels = zip(*(part.level_positives for part in parts), strict=True)
        return cls(
            images=sum(part.images for part in parts),
            positives=tuple(count for part in parts for count in part.positives),
            sizes=tuple(size for part in parts for size in part.sizes),
            conflicts=sum(part.conflicts for part in parts),
            level_strides=parts[0].level_strides,
            level_positives=tuple(sum(level) for level in levels),
            background=sum(part.background for part in parts),
            ignored=sum(part.ignored for part in parts),
        )

    def text(self) -> str:
        """A table for a terminal."""
        boxes, total = len(self.positives), sum(self.positives)
        mean = total / boxes if boxes else 0.0
        lines = [
            f"{counted(self.images, 'image')}, {counted(boxes, 'box', 'boxes')}, "
            f"{counted(total, 'positive prior')} ({mean:.2f} per box), "
            f"{self.ignored:,} ignored, {self.background:,} background",
            f"{counted(len(self.without_positive), 'box', 'boxes')} without a positive, "
            f"{self.conflicts:,} priors claimed by several boxes",
            f"{'box size, px':<16}{'boxes':>8}{'positives':>11}{'per box':>9}{'without':>9}",
        ]
        lines += [
            f"{one.name:<16}{one.boxes:>8,}{one.positives:>11,}{one.mean:>9.2f}{one.without:>9,}"
            for one in self.size_bins
        ]
        levels = zip(self.level_strides, self.level_positives, strict=True)
        by_stride = ", ".join(f"{stride}: {count:,}" for stride, count in levels)
        by_positives = ", ".join(f"{number}: {count:,}" for number, count in self.histogram.items())
        lines += [f"positives by stride: {by_stride}", f"boxes by positives: {by_positives}"]
        return "\n".join(lines)

    __str__ = text


def report(
    grid: PriorGrid, gt_boxes: Tensor, matched: Tensor, candidates: Sequence[Candidates]
) -> AssignmentReport:
    """Summarise one image.

    Args:
        grid: Its priors.
        gt_boxes: (G, 4).
        matched: (P,) what the assigner returned.
        candidates: Of both stages; without any, no conflict is counted.
    """
    conflicts = 0
    for stage in (0, 1):
        # Priors that several boxes want in one stage: only one of them gets it.
        boxes_per_prior = torch.zeros(len(grid), dtype=torch.int64, device=grid.device)
        for part in candidates:
            wanted = part.prior[part.is_positive & (part.stage == stage)]
            boxes_per_prior += torch.bincount(wanted, minlength=len(grid))
        conflicts += int((boxes_per_prior > 1).sum())

    positive = matched[matched >= 0]
    sides = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clamp(min=0)
    levels = torch.bincount(grid.level_index[matched >= 0], minlength=len(grid.strides))
    return AssignmentReport(
        images=1,
        positives=tuple(torch.bincount(positive, minlength=len(gt_boxes)).tolist()),
        sizes=tuple(sides.prod(dim=1).sqrt().tolist()),
        conflicts=conflicts,
        level_strides=grid.strides,
        level_positives=tuple(levels.tolist()),
        background=int((matched == BACKGROUND).sum()),
        ignored=int((matched == IGNORED).sum()),
    )
