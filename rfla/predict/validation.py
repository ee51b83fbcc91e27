"""`rfla val`: whole images, or with `slice=`, `tta=` and `gsd=` exactly as `rfla predict`.

Shapes: N detections of one image, G true boxes. Boxes are xyxy px of the original image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from rfla.cfg import Config
from rfla.data import Annotations
from rfla.data.image_header import set_max_pixels
from rfla.data.images import Image
from rfla.data.pixel_range import Range
from rfla.data.scenes import read_by_windows
from rfla.engine import validator
from rfla.engine.distributed import gather
from rfla.engine.inference import Speed, detections_of, join_detections
from rfla.engine.validator import SplitDetector, SplitPass, WholeImages
from rfla.metrics import Detections, Metrics, Study
from rfla.predict.image_jobs import share_of
from rfla.predict.model import load_model
from rfla.predict.notes import Notes, joined
from rfla.predict.options import PredictOptions
from rfla.predict.predictor import Predictor
from rfla.predict.tiles import Mask, TileGrid
from rfla.results import Results

ROUNDING = 0.01  # px by which a box may reach over the edge of a slice that holds it


def validate(cfg: Config) -> Metrics:
    """Validate, as `rfla val` does: figures on a split, written to a run directory.

    Args:
        cfg: Settings; see `rfla.engine.validator.validate`. With `slice=`, `tta=` or `gsd=` images
            go through the network as in `rfla predict`.

    Raises:
        RflaError: Any error that the user can fix, in one line.
    """
    as_predicted = cfg.slice is not None or cfg.tta is not False or "gsd" in cfg.given
    detector = AsPredicted() if as_predicted else WholeImages()
    return validator.validate(cfg, detector, load_model)


@dataclass(frozen=True)
class SplitImage:
    """One image of a split, read as its annotations mean it.

    Attributes:
        index: The split.
        row: The image's place in it.
    """

    index: Annotations
    row: int

    @property
    def name(self) -> str:
        """The image's file."""
        return str(self.index.paths[self.row])

    @property
    def file(self) -> Path | None:
        """The image's file; None where the image is a part of it."""
        return Path(self.name) if self.index.window(self.row) is None else None

    @property
    def by_windows(self) -> bool:
        """Whether the file is too large to be decoded whole, and an image of its own."""
        return self.file is not None and read_by_windows(self.file)

    def read(self, value_range: Range | None, remarks: list[str] | None) -> Image:
        """Return (H, W, 3) uint8 RGB, at the size of the file.

        Raises:
            DataError: The file is not a readable image, or not the one that was annotated.
        """
        index = replace(self.index, value_range=value_range)
        return index.read_image(self.row, remarks=remarks)


class AsPredicted(SplitDetector):
    """Images are resized, cut and looked at, and their detections merged, as in `rfla predict`."""

    def run(self, job: SplitPass) -> tuple[Detections, Speed]:
        """Return what this process found in its share, and the time of each stage."""
        cfg, index, speed = job.cfg, job.index, Speed()
        set_max_pixels(cfg.max_pixels)
        options = PredictOptions.from_config(cfg, job.model, device=job.device)
        predictor = Predictor(job.model, job.device, cfg.amp)
        rows = share_of(range(len(index)), options.batch, job.world)
        images = [SplitImage(index, row) for row in rows]
        notes, found = Notes(), []

        started = perf_counter()
        with job.progress.over(len(images), "validate") as bar:
            for image, results in predictor.stream_with_images(images, options, notes):
                assert isinstance(image, SplitImage)
                output = _in_annotated_px(results, index.image_hw[image.row].tolist())
                found.append(detections_of(image.row, output, job.mapping))
                _add(speed, results.speed)
                bar.step()
        # What neither the network nor its two neighbours took: reading and cutting.
        stages = speed.preprocess + speed.inference + speed.gather
        speed.load = perf_counter() - started - stages
        notes = joined(gather(job.world, notes))
        for reason in notes.skipped:
            job.progress.console.print(f"skipped: {reason}", style="yellow")
        for line in notes.lines(options.imgsz, options.limits.max_det, options.slices is not None):
            job.progress.console.print(f"note: {line}", style="yellow")
        return join_detections(found), speed

    def remarks(self, job: SplitPass, judged: Study) -> list[str]:
        """Say how well objects at seams were found, beside the others, where there are seams."""
        options = PredictOptions.from_config(job.cfg, job.model)
        return [] if options.slices is None else [seam_line(judged, job.index, options)]


def _in_annotated_px(results: Results, annotated: Sequence[int]) -> dict[str, Tensor]:
    """Return the detections of one image as a network gives them, in px of its annotations."""
    boxes, (height, width) = results.boxes, results.orig_shape
    ratio = np.array([annotated[1] / width, annotated[0] / height] * 2, np.float32)
    return {
        "boxes": torch.from_numpy(boxes.xyxy * ratio),
        "scores": torch.from_numpy(boxes.conf),
        "labels": torch.from_numpy(boxes.cls),
    }


def _add(speed: Speed, milliseconds: Mapping[str, float]) -> None:
    """Add the time of one image."""
    speed.images += 1
    speed.preprocess += milliseconds.get("preprocess", 0.0) / 1000
    speed.inference += milliseconds.get("inference", 0.0) / 1000
    speed.gather += milliseconds.get("postprocess", 0.0) / 1000


def seam_line(judged: Study, index: Annotations, options: PredictOptions) -> str:
    """Say how many of the objects at seams were found, beside those away from them.

    An object is at a seam if more than one slice shows a part of it, and found if a detection of
    its class has an IoU of 0.5 with it at least, whatever its score.
    """
    at_seam, cut_by_all = np.zeros((2, len(index.boxes)), bool)
    for row, (height, width) in enumerate(index.image_hw.tolist()):
        here = index.rows_of(row)
        boxes = index.boxes[here].astype(np.float64)
        gsd = options.ground_of(SplitImage(index, row).file)
        grid = TileGrid(options.cut(height, width, gsd).tiles, (height, width))
        at_seam[here] = grid.met(boxes) > 1
        cut_by_all[here] = grid.held(boxes, -ROUNDING) == 0

    errors = judged.errors
    asked = errors.gt_row[errors.counted]
    found = np.isfinite(errors.found_score[errors.counted])
    seam, cut = at_seam[asked], cut_by_all[asked]
    others = f", {_share(found[~seam])} of the others" if not seam.all() else ""
    line = (
        f"{seam.sum():,} of {len(asked):,} objects lie at seams of slices: "
        f"{_share(found[seam])} of them were found{others} (at IoU 0.5 and any score)"
    )
    if not cut.any():
        return line
    return (
        f"{line}; {cut.sum():,} are cut by every slice, of which {_share(found[cut])} were found: "
        "a larger overlap= helps"
    )


def _share(found: Mask) -> str:
    return f"{found.mean():.1%}" if len(found) else "none"
