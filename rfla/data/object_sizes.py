"""How large objects are when the network sees them, and what to do where they shrink.

`imgsz` is the long side of the input: images that are longer are made smaller, and their objects
with them. A size is the square root of width x height, px.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.record import is_object
from rfla.sizes import padded_side

# px: one cell of the finest level (stride 4); of a smaller object little more than a pixel is left
SMALLEST = 4.0
_KEPT = 0.99  # share of the objects that an advised size keeps
LARGEST_ADVISED = 2048  # px: beyond it, cut tiles


@dataclass(frozen=True)
class ShrunkObjects:
    """What resizing to `imgsz` does to the objects of a split.

    Attributes:
        imgsz: Long side of the input, px.
        objects: How many there are.
        lost: How many are of 4 px or more in their image, and smaller at the input.
        scale: Input px per image px, the median over the lost objects.
        enough: The smallest `imgsz` that keeps 99 % of the objects that could be kept, or all where
            `imgsz` keeps 99 %, px.
    """

    imgsz: int
    objects: int
    lost: int
    scale: float
    enough: int

    def line(self) -> str:
        """Say how many objects are lost and what to type, in one line."""
        return f"{self.lost:,} {self.what()}"

    def what(self) -> str:
        """The line without its number."""
        return (
            f"of {self.objects:,} objects shrink below {SMALLEST:g} px at imgsz={self.imgsz} "
            f"(their images to {self.scale:.2g} of the size): {self._advice()}"
        )

    def _advice(self) -> str:
        tiles = f"rfla convert format=... tile={self.imgsz}"
        if self.enough > LARGEST_ADVISED:
            return f"cut tiles ({tiles})"
        return f"imgsz={self.enough} prevents this, and so do tiles ({tiles})"


def shrunk_objects(index: Annotations, imgsz: int) -> ShrunkObjects | None:
    """Return what resizing to `imgsz` takes away, or None where it takes nothing.

    Args:
        index: The split.
        imgsz: Long side of the input, px.
    """
    sizes, longest = _object_sizes(index)
    could = sizes >= SMALLEST
    lost = could & (sizes * imgsz / longest < SMALLEST)
    if not lost.any():
        return None
    # The input at which each object has 4 px; never larger than its image.
    needed = np.minimum(SMALLEST * longest[could] / sizes[could], longest[could])
    enough = padded_side(math.ceil(float(np.quantile(needed, _KEPT))))
    if enough <= imgsz:  # of less than 1 % lost, all can be kept
        enough = padded_side(math.ceil(float(needed.max())))
    scale = float(np.median(imgsz / longest[lost]))
    return ShrunkObjects(imgsz, len(sizes), int(lost.sum()), scale, enough)


@dataclass(frozen=True)
class TrainedScale:
    """How large the objects were that a network learnt, in px of its input.

    Attributes:
        px_99: Long side that 99 % of them stay below.
        px_max: The largest long side.
        gsd: Metres on the ground that a pixel covers; None where it was not stated.
    """

    px_99: float
    px_max: float
    gsd: float | None = None

    @property
    def largest(self) -> float:
        """Long side of the largest object to reckon with, px: twice `px_99` at the most.

        A few huge objects, or mistakes, among many small ones shall not decide for all.
        """
        return min(self.px_max, 2 * self.px_99)


def trained_scale(index: Annotations, imgsz: int, gsd: float | None = None) -> TrainedScale | None:
    """Return the sizes of the objects of a split at the input; None where there are none.

    Args:
        index: The split.
        imgsz: Long side of the input, px.
        gsd: Metres that a pixel of its images covers on the ground; of images of several sizes the
            median decides what one at the input covers.
    """
    objects = is_object(index)
    boxes = index.boxes[objects].astype(np.float64)
    if not len(boxes):
        return None
    longest = np.maximum(index.image_hw.max(axis=1), 1)
    scale = imgsz / longest  # (N,) input px per image px
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * scale[index.image_index[objects]]
    at_input = None if gsd is None else gsd / float(np.median(scale))
    return TrainedScale(float(np.quantile(sides, 0.99)), float(sides.max()), at_input)


def _object_sizes(index: Annotations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return size and long side of its image of each object, px."""
    objects = is_object(index)
    boxes = index.boxes[objects].astype(np.float64)
    sizes = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
    longest = index.image_hw.max(axis=1)[index.image_index[objects]]
    return sizes, np.maximum(longest, 1).astype(np.float64)
