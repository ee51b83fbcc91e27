"""How images are predicted: what a run or a call sets, checked against the model's classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rfla.cfg import Config
from rfla.data.georeference import read_gsd
from rfla.data.pixel_range import Range, range_of
from rfla.engine.model_source import SourceModel
from rfla.errors import ConfigError, did_you_mean
from rfla.models.limits import build_limits
from rfla.ops.nms import DetectionLimits
from rfla.predict.merge import TileMerger
from rfla.predict.nodata import Fill, fill_of
from rfla.predict.slices import Slices
from rfla.predict.source_image import Reading
from rfla.predict.tiles import Integers
from rfla.predict.views import PLAIN, VIEWS, View


class Part(NamedTuple):
    """The part of a scene's slices that a process takes: number `number` of `of_all`."""

    number: int = 0
    of_all: int = 1

    def of(self, slices: int) -> range:
        """Return the numbers of its slices."""
        first, behind = (slices * i // self.of_all for i in (self.number, self.number + 1))
        return range(first, behind)


ALL = Part()
CPU = torch.device("cpu")

ON_GPU = 16  # inputs of 800 px in one pass; with fewer a GPU waits for the host


class Cut(NamedTuple):
    """The pieces of an image.

    Attributes:
        tiles: (M, 4) xyxy px of the image.
        resized: Input px for each px of the image where the ground decides; None: each piece has
            a long side of `imgsz`.
    """

    tiles: Integers
    resized: float | None = None


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted.

    Attributes:
        imgsz: Long side of the network's input in px.
        batch: Images, or slices of them, in one pass of the network.
        conf: Lowest score that is kept.
        limits: What the network keeps of an image or slice, and what its views together keep.
        classes: Class indices that are kept; empty keeps all.
        agnostic_iou: IoU above which the better of two boxes of any class stays; None: per class.
        slices: How images are cut; None: not at all.
        gsd: Metres on the ground that a pixel of the images covers; None: what a GeoTIFF states.
        trained_gsd: The same of the network's input in its training; None: unknown, and images
            are not resized.
        fill: Colour of pixels without data.
        views: What the network sees of each piece.
        part: Which slices of an image are run here; the others are another process's.
        reading: How files are read.
    """

    imgsz: int
    batch: int = 1
    conf: float = 0.0
    limits: DetectionLimits = field(default_factory=DetectionLimits)
    classes: tuple[int, ...] = ()
    agnostic_iou: float | None = None
    slices: Slices | None = None
    gsd: float | None = None
    trained_gsd: float | None = None
    fill: Fill = (124, 116, 104)
    views: tuple[View, ...] = PLAIN
    part: Part = ALL
    reading: Reading = field(default_factory=Reading)

    @property
    def value_range(self) -> Range | None:
        """Values that become 0 and 255 in files of more than 8 bits."""
        return self.reading.value_range

    @classmethod
    def from_config(
        cls,
        cfg: Config,
        model: SourceModel,
        *,
        device: torch.device = CPU,
        live: bool = False,
    ) -> "PredictOptions":
        """Return the options of a run.

        Args:
            cfg: Its settings.
            model: What is run.
            device: Where the network computes: on a GPU a batch that keeps it busy is the default.
            live: No image waits for another one, unless `batch=` asks for it.

        Raises:
            ConfigError: A class that the model does not know, an overlap that is not below the side
                of a slice, or `gsd=` for a model that does not know its own.
        """
        scale, slices = model.scale, None
        if cfg.slice is not None:
            largest = scale.largest if scale is not None else None
            rule = (cfg.merge, cfg.merge_metric, cfg.merge_classes)
            slices = Slices(cfg.slice, cfg.overlap, *rule, largest)
            slices.overlap_px(cfg.imgsz)  # refuses one that leaves no step, before anything is made
        trained_gsd = scale.gsd if scale is not None else None
        if "gsd" in cfg.given and trained_gsd is None:
            raise ConfigError(
                f"gsd={cfg.gsd:g}: model={cfg.model} does not say at which gsd it was trained; "
                "train with gsd=, or resize the images"
            )
        return cls(
            imgsz=cfg.imgsz,
            batch=_batch_of(cfg, device, live),
            conf=cfg.conf or 0.0,
            limits=build_limits(cfg.test),
            classes=tuple(class_indices(cfg.classes, model.names)),
            agnostic_iou=cfg.test.nms_iou if cfg.agnostic_nms else None,
            slices=slices,
            views=VIEWS[cfg.tta],
            gsd=cfg.gsd,
            trained_gsd=trained_gsd,
            fill=fill_of(cfg.normalize),
            reading=Reading(cfg.vid_stride, cfg.pages, range_of(cfg.normalize)),
        )

    def ground_of(self, file: Path | None) -> float | None:
        """Return the metres that a pixel of an image covers, where that matters and is known."""
        if self.trained_gsd is None:
            return None
        if self.gsd is not None or file is None:
            return self.gsd
        return read_gsd(file)

    def cut(self, height: int, width: int, gsd: float | None = None) -> Cut:
        """Return the pieces of an image: its slices, or the whole of it.

        Args:
            height: Of the image, px.
            width: Of the image, px.
            gsd: Metres that its pixels cover; None: the network sees each piece at `imgsz`.
        """
        if gsd is None or self.trained_gsd is None:
            zoom, resized = 1.0, None
        else:
            zoom = resized = gsd / self.trained_gsd
        if self.slices is None:
            whole = np.array([[0, 0, width, height]], np.int64)
            return Cut(whole, resized)
        tiles = self.slices.tiles(height, width, self.imgsz, zoom)
        if resized is not None:  # a full slice fills the input
            resized = self.imgsz / max(round(self.slices.side(self.imgsz) / zoom), 1)
        return Cut(tiles, resized)

    def long_side(self, cut: Cut, height: int, width: int) -> int:
        """Return the long side at which the network sees a piece, px."""
        if cut.resized is None:
            return self.imgsz
        return min(max(round(max(height, width) * cut.resized), 1), self.imgsz)

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
        elif str(given).isdecimal() and int(given) < len(names):
            indices.append(int(given))
        else:
            hint = did_you_mean(str(given), names)
            raise ConfigError(f"classes={given}: the model has {', '.join(names)}{hint}")
    return indices


def _batch_of(cfg: Config, device: torch.device, live: bool) -> int:
    if "batch" in cfg.given and cfg.batch > 0:
        return cfg.batch
    if live:
        return 1
    if device.type == "cuda":
        return min(max(1, ON_GPU * 800**2 // cfg.imgsz**2), ON_GPU)
    return max(1, cfg.batch)
