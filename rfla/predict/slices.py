"""Large images in slices: which tiles an image is cut into, and one list of boxes from them all."""

from dataclasses import dataclass
from typing import Literal

from rfla.errors import ConfigError
from rfla.predict.merge import TileMerger
from rfla.predict.seams import Metric, Rule
from rfla.predict.tiles import Integers, plan_tiles


@dataclass(frozen=True)
class Slices:
    """How images are cut and put together again.

    Attributes:
        size: Side of a slice in px of the image; `auto` takes `imgsz`, so that objects keep their
            size in the network.
        overlap: What two neighbours share: px, or a share of the side where it is below 1.
        merge: Rule at the seams, as in `merge_tiles`.
        metric: As in `merge_tiles`.
        classes: As in `merge_tiles`.
    """

    size: int | Literal["auto"]
    overlap: float = 0.2
    merge: Rule = "seam"
    metric: Metric = "iou"
    classes: bool = False

    def tiles(self, height: int, width: int, imgsz: int) -> Integers:
        """Return (M, 4) xyxy px of the slices of an image.

        Raises:
            ConfigError: The overlap is not below the side of a slice.
        """
        side = imgsz if self.size == "auto" else self.size
        overlap = round(self.overlap * side) if self.overlap < 1 else round(self.overlap)
        if overlap >= side:
            raise ConfigError(
                f"overlap={self.overlap:g} with slices of {side} px: must be below their side"
            )
        return plan_tiles(height, width, side, overlap)

    def merger(self, tiles: Integers, shape: tuple[int, int]) -> TileMerger:
        """Return what takes the boxes of the slices, in the order of `tiles`."""
        return TileMerger(tiles, shape, self.merge, self.metric, self.classes)
