"""Large images in slices: which tiles an image is cut into, and one list of boxes from them all."""

import math
from dataclasses import dataclass
from typing import Literal

from rfla.data.tiles import plan_tiles
from rfla.errors import ConfigError
from rfla.names import MergeMetric, MergeRule
from rfla.predict.merge import TileMerger
from rfla.predict.seams import NEAR
from rfla.predict.tiles import Integers

SHARE = 0.2  # of the side, where nothing is known of the objects


@dataclass(frozen=True)
class Slices:
    """How images are cut and put together again.

    Attributes:
        size: Side of a slice in px of the image; `auto` takes `imgsz`, so that objects keep their
            size in the network.
        overlap: What two neighbours share: px, or a share of the side where it is below 1. None:
            enough for `largest`, and where that is not known a fifth of the side.
        merge: Rule at the seams, as in `merge_tiles`.
        metric: As in `merge_tiles`.
        classes: As in `merge_tiles`.
        largest: Long side of the largest object to reckon with, px of the network's input.
    """

    size: int | Literal["auto"]
    overlap: float | None = None
    merge: MergeRule = "seam"
    metric: MergeMetric = "iou"
    classes: bool = False
    largest: float | None = None

    def side(self, imgsz: int) -> int:
        """Return the side of a slice, px of the image."""
        return imgsz if self.size == "auto" else self.size

    def overlap_px(self, imgsz: int) -> int:
        """Return what two neighbours share, px of the image.

        Raises:
            ConfigError: The overlap is not below the side of a slice.
        """
        side = self.side(imgsz)
        if self.overlap is None:
            if self.largest is None:
                return round(SHARE * side)
            # Such an object lies clear of all edges in one slice (docs/prediction.md).
            needed = math.ceil(self.largest * side / imgsz + 2 * NEAR)
            return min(needed, side // 2)
        overlap = round(self.overlap * side) if self.overlap < 1 else round(self.overlap)
        if overlap >= side:
            raise ConfigError(
                f"overlap={self.overlap:g} with slices of {side} px: must be below their side"
            )
        return overlap

    def tiles(self, height: int, width: int, imgsz: int, zoom: float = 1.0) -> Integers:
        """Return (M, 4) xyxy px of the slices of an image.

        Args:
            height: Of the image, px.
            width: Of the image, px.
            imgsz: Long side of the network's input, px.
            zoom: Factor by which the image is thought resized; side and overlap are px of that.

        Raises:
            ConfigError: The overlap is not below the side of a slice.
        """
        side = max(round(self.side(imgsz) / zoom), 1)
        overlap = min(math.ceil(self.overlap_px(imgsz) / zoom), side - 1)
        return plan_tiles(height, width, side, overlap)

    def merger(self, tiles: Integers, shape: tuple[int, int]) -> TileMerger:
        """Return what takes the boxes of the slices, in the order of `tiles`."""
        return TileMerger(tiles, shape, self.merge, self.metric, self.classes)
