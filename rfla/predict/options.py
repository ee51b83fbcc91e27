"""How images are predicted: what a run or a call sets, checked against the model's classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfla.cfg import Config
from rfla.data.pixel_range import Range
from rfla.errors import ConfigError, did_you_mean
from rfla.predict.merge import TileMerger
from rfla.predict.slices import Slices
from rfla.predict.tiles import Integers


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted.

    Attributes:
        imgsz: Long side of the network's input in px.
        batch: Images, or slices of them, in one pass of the network.
        conf: Lowest score that is kept.
        max_det: Most boxes of an image or slice; what the network itself keeps.
        classes: Class indices that are kept; empty keeps all.
        agnostic_iou: IoU above which the better of two boxes of any class stays; None: per class.
        slices: How images are cut; None: not at all.
        value_range: Values that become 0 and 255 in files of more than 8 bits.
    """

    imgsz: int
    batch: int = 1
    conf: float = 0.0
    max_det: int = 3000
    classes: tuple[int, ...] = ()
    agnostic_iou: float | None = None
    slices: Slices | None = None
    value_range: Range | None = None

    @classmethod
    def from_config(cls, cfg: Config, names: Sequence[str]) -> "PredictOptions":
        """Return the options of a run.

        Raises:
            ConfigError: A class that the model does not know.
        """
        slices = None
        if cfg.slice is not None:
            slices = Slices(cfg.slice, cfg.overlap, cfg.merge, cfg.merge_metric, cfg.merge_classes)
        return cls(
            imgsz=cfg.imgsz,
            batch=max(1, cfg.batch),
            conf=cfg.conf or 0.0,
            max_det=cfg.test.max_det,
            classes=tuple(class_indices(cfg.classes, names)),
            agnostic_iou=cfg.test.nms_iou if cfg.agnostic_nms else None,
            slices=slices,
            value_range=cfg.normalize.range,
        )

    def tiles(self, height: int, width: int) -> Integers:
        """Return (M, 4) xyxy px of the pieces of an image: its slices, or the whole of it."""
        if self.slices is None:
            return np.array([[0, 0, width, height]], np.int64)
        return self.slices.tiles(height, width, self.imgsz)

    def merger(self, tiles: Integers, shape: tuple[int, int]) -> TileMerger:
        """Return what puts the boxes of the pieces together."""
        if self.slices is None:
            return TileMerger(tiles, shape)
        return self.slices.merger(tiles, shape)


def class_indices(classes: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """Turn `classes=ship,3` into indices.

    Raises:
        ConfigError: A class that the model does not know.
    """
    indices = []
    for given in classes:
        if str(given) in names:
            indices.append(list(names).index(str(given)))
        elif str(given).isdigit() and int(given) < len(names):
            indices.append(int(given))
        else:
            hint = did_you_mean(str(given), names)
            raise ConfigError(f"classes={given}: the model knows {', '.join(names)}{hint}")
    return indices
