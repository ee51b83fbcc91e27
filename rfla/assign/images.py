"""The images of one call of an assigner, with all their boxes in one flat list, and their windows.

Shapes: B images, N boxes of all images, P priors of an image. Boxes are xyxy in px of the network
input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rfla.assign.arguments import box_rows, prior_boxes, require_entries, valid_priors
from rfla.assign.chunks import chunks
from rfla.assign.distance import Distance
from rfla.assign.prior_grid import PriorGrid
from rfla.assign.windows import ValidCells, Windows, candidates_per_box, score_windows

CACHE_BUDGET = 2 * 2**20
"""Bytes of one score tensor on the CPU: small enough to stay in its cache."""
DEVICE_BUDGET = 6 * 2**20
"""Bytes of one score tensor on a GPU, at least: large enough for few launches. All tensors of a
chunk take 8 times that, which for 2,000 boxes is under 64 MiB."""
DEVICE_BUDGET_PER_BOX = 3200
"""The same for each box: many boxes get more memory, and no more launches."""


@dataclass(frozen=True, eq=False)
class Images:
    """What to assign; build it with `pack`.

    Attributes:
        priors: A grid, or one (P, 4) tensor of plain boxes for each image.
        boxes: (N, 4) float32.
        image: (N,) int64 index of the image of each box.
        counts: Boxes of each image.
        sizes: (height, width) of each image, or None.
        allowed_border: Px, or None.
    """

    priors: PriorGrid | Sequence[Tensor]
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    sizes: Sequence[tuple[int, int]] | None
    allowed_border: float | None

    @property
    def num_priors(self) -> int:
        """P."""
        return len(self.priors) if isinstance(self.priors, PriorGrid) else len(self.priors[0])

    def of_image(self, index: int) -> PriorGrid | Tensor:
        """The priors of one image."""
        return self.priors if isinstance(self.priors, PriorGrid) else self.priors[index]

    @cached_property
    def local(self) -> Tensor:
        """(N,) int64 index of each box within its image."""
        index = torch.arange(len(self.boxes), device=self.boxes.device)
        return index if len(self.counts) == 1 else index - self.starts[self.image]

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64 index of the first box of each image."""
        starts = torch.tensor((0, *self.counts[:-1])).cumsum(0)
        return starts.to(self.boxes.device, non_blocking=True)

    @cached_property
    def restricted(self) -> bool:
        """Whether some prior of some image may be invalid."""
        if self.sizes is None:
            return False
        if self.allowed_border is not None or not isinstance(self.priors, PriorGrid):
            return True
        # Some image ends before the last row or the last column of some level.
        return any(
            height <= (rows - 1) * stride or width <= (columns - 1) * stride
            for height, width in self.sizes
            for (rows, columns), stride in zip(
                self.priors.feature_sizes, self.priors.strides, strict=True
            )
        )

    def valid(self, index: int) -> Tensor | None:
        """(P,) bool of one image, or None where all priors are valid."""
        if not self.restricted or self.sizes is None:
            return None
        return valid_priors(self.of_image(index), self.sizes[index], self.allowed_border)

    def valid_cells(self, grid: PriorGrid) -> ValidCells:
        """The valid cells of each image.

        The fields at full size decide what is valid, whatever the stage.
        """
        if not self.restricted or self.sizes is None:
            return ValidCells.of_grid(grid)
        sizes = torch.tensor(self.sizes, dtype=torch.float32)  # (B, 2)
        sizes = sizes.to(self.boxes.device, non_blocking=True)
        return ValidCells.of_images(grid, sizes, self.allowed_border)


def pack(
    priors: PriorGrid | Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]] | None,
    allowed_border: float | None,
) -> Images:
    """Join the boxes of all images.

    Raises:
        ValueError: No image, boxes that are not (G, 4), arguments for another number of images, or
            an allowed border without the sizes of the images.
    """
    if allowed_border is not None and sizes is None:
        raise ValueError("allowed_border needs the image size")
    if not len(gt_boxes):
        raise ValueError("gt_boxes: a tensor for each image expected, not none")
    require_entries("image_sizes", sizes, len(gt_boxes))
    rows = [box_rows(boxes) for boxes in gt_boxes]
    counts, boxes = tuple(map(len, rows)), torch.cat(rows)
    image = torch.zeros(len(boxes), dtype=torch.int64)
    if len(counts) > 1:
        # With the size of the result stated, a GPU need not be waited for.
        image = torch.arange(len(counts)).repeat_interleave(
            torch.tensor(counts), output_size=len(boxes)
        )
    image = image.to(boxes.device, non_blocking=True)
    if not isinstance(priors, PriorGrid):
        if isinstance(priors, Tensor):
            raise ValueError(
                "priors: a grid, or a list with a (P, 4) tensor for each image, expected"
            )
        require_entries("priors", priors, len(gt_boxes))
        priors = [prior_boxes(one) for one in priors]
        if len({len(one) for one in priors}) > 1:
            raise ValueError("priors: the same number for all images expected")
    return Images(priors, boxes, image, counts, sizes, allowed_border)


def score_in_chunks(
    images: Images,
    grids: Sequence[PriorGrid],
    distance: Distance,
    radius: int,
    valid: ValidCells,
) -> Iterator[tuple[slice, Windows]]:
    """Score all boxes against their windows, some boxes at a time.

    Args:
        images: What to assign, on a grid.
        grids: The grid of each stage.
        distance: How to score.
        radius: Cells on each side of the nearest one.
        valid: The valid cells of each image.

    Yields:
        Which boxes, and their windows, which last until the next ones are asked for.
    """
    total, cells = len(images.boxes), int(candidates_per_box(grids[0], radius))
    box_bytes = cells * 4 * len(grids)
    memory = None
    if images.boxes.device.type == "cpu":
        budget = CACHE_BUDGET
        needed = max(box_bytes, min(budget, box_bytes * total))
        memory = images.boxes.new_empty(needed // 4)  # one for all chunks
    else:
        budget = max(DEVICE_BUDGET, DEVICE_BUDGET_PER_BOX * total)
    for part in chunks(total, box_bytes, budget):
        own = valid.of_boxes(images.image[part])
        yield part, score_windows(grids, distance, images.boxes[part], radius, own, memory)
