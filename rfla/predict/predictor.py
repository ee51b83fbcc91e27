"""One network over images of any size: images in, `Results` out.

Shapes: B pieces of a batch, N detections of one image. Boxes are xyxy px.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from rfla.data.images import Image
from rfla.data.resize import padded_shape, resize_long_side
from rfla.data.stacking import stack_images
from rfla.engine.device import autocast_dtype, on_device, use_fast_float32
from rfla.engine.inference import Inference, Speed
from rfla.engine.memory import unless_full
from rfla.engine.model_source import SourceModel
from rfla.errors import RflaError
from rfla.ops.nms import DetectionLimits, class_nms
from rfla.predict.image_jobs import Job, Picture, Piece, pieces
from rfla.predict.notes import Notes
from rfla.predict.options import PredictOptions
from rfla.predict.source_image import SourceImage
from rfla.predict.views import through_views
from rfla.results import Boxes, Results


class Predictor:
    """Runs one network over images of any size; threads that share it take turns.

    Args:
        model: The network and its classes.
        device: Where to compute.
        amp: Half precision on a GPU.
    """

    def __init__(self, model: SourceModel, device: torch.device, amp: bool | str = True):
        self.model = model
        dtype = autocast_dtype(device, amp)
        use_fast_float32(amp is not False)
        net = on_device(model.net, device, dtype).eval()
        self.inference = Inference(net, model.config.normalize, device, dtype)
        self._turn = RLock()  # the limits of a call must hold while its batch runs
        self._fits = sys.maxsize  # pieces of a batch that memory may hold
        self._limited = [
            part
            for part in net.modules()
            if isinstance(getattr(part, "limits", None), DetectionLimits)
        ]

    def use_limits(self, limits: DetectionLimits) -> None:
        """Let the network keep other detections from now on.

        Raises:
            ConfigError: An exported network has already cut off what these would keep.
        """
        with self._turn:
            for part in self._limited:
                setattr(part, "limits", limits)  # noqa: B010  a plain attribute, no submodule

    def stream(
        self, images: Iterable[SourceImage], options: PredictOptions, notes: Notes | None = None
    ) -> Iterator[Results]:
        """Yield the results of each image, in order; an unreadable image is left out.

        Slices of one image and of several share batches.

        Args:
            images: What to run on.
            options: How.
            notes: Is told what was skipped, shrunk or cut off.
        """
        notes = notes if notes is not None else Notes()
        for image, results in self.stream_with_images(images, options, notes):
            assert isinstance(image, SourceImage)
            yield replace(results, frame=image.frame, time=image.seconds)

    def stream_with_images(
        self, images: Iterable[Picture], options: PredictOptions, notes: Notes
    ) -> Iterator[tuple[Picture, Results]]:
        """Do as `stream`, and yield each image beside its results."""
        waiting: deque[Job] = deque()
        for batch in _batches(pieces(images, options, notes, waiting), options):
            self._run(batch, options)
            yield from self._finished(waiting, options, notes)
        yield from self._finished(waiting, options, notes)  # those without a slice to look at

    def run(
        self,
        images: Iterable[Picture],
        options: PredictOptions,
        notes: Notes,
        waiting: deque[Job],
    ) -> None:
        """Detect in all slices of images; `waiting` gets them, their boxes not yet merged."""
        for batch in _batches(pieces(images, options, notes, waiting), options):
            self._run(batch, options)

    def _finished(
        self, waiting: deque[Job], options: PredictOptions, notes: Notes
    ) -> Iterator[tuple[Picture, Results]]:
        """Yield the images that are through, in order."""
        while waiting and waiting[0].is_done:
            job = waiting.popleft()
            yield job.image, self.finish(job, options, notes)

    def _run(self, batch: Sequence[Piece], options: PredictOptions) -> None:
        """Detect in a batch, in halves of it where a GPU's memory is too small.

        Raises:
            RflaError: It is too small for one image or slice.
        """
        if len(batch) <= self._fits:
            _, full = unless_full(lambda: self._run_at_once(batch, options))
            if full is None:
                return
            if len(batch) == 1:
                raise RflaError(
                    f"out of memory with one input of {options.imgsz} px: "
                    "use a smaller imgsz= or slice="
                ) from full
            self._fits = (len(batch) + 1) // 2
        middle = (len(batch) + 1) // 2
        for half in (batch[:middle], batch[middle:]):
            self._run(half, options)

    def _run_at_once(self, batch: Sequence[Piece], options: PredictOptions) -> None:
        """Detect in a batch, and give each piece's detections to its image."""
        speed = Speed()
        sides = [long_side(piece, options) for piece in batch]

        def detect(pictures: Sequence[Image], scale: float) -> list[dict[str, Tensor]]:
            pairs = zip(pictures, sides, strict=True)
            resized = [resize_long_side(pixels, scaled(side, scale)) for pixels, side in pairs]
            on_gpu = self.inference.device.type == "cuda"
            images, sizes = stack_images([pixels for pixels, _ in resized], pinned=on_gpu)
            return self.inference(
                images,
                sizes,
                torch.tensor([ratio for _, ratio in resized], dtype=torch.float32),
                [pixels.shape[:2] for pixels in pictures],
                speed,
            )

        pictures = [piece.pixels for piece in batch]
        limits = options.limits
        with self._turn:
            self.use_limits(limits)  # another call may have set its own since the last batch
            outputs = through_views(pictures, detect, options.views, limits.nms_iou, limits.max_det)
        speed.images = len(batch)  # not their other views
        times = speed.per_image()
        share = {
            "preprocess": times["preprocess"],
            "inference": times["inference"],
            "postprocess": times["gather"],
        }
        for piece, output in zip(batch, outputs, strict=True):
            piece.job.add(output, share, limits.max_det)

    def finish(self, job: Job, options: PredictOptions, notes: Notes) -> Results:
        """Return one image's detections, in px of the image."""
        notes.full += job.full
        found = job.merged()
        found = found.take(np.argsort(-found.scores, kind="stable"))
        boxes, scores = found.boxes.astype(np.float32), found.scores.astype(np.float32)
        labels = found.labels
        keep = scores >= options.conf
        if options.classes:
            keep &= np.isin(labels, options.classes)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        if options.agnostic_iou is not None:
            tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
            one_class = torch.zeros(len(scores), dtype=torch.int64)
            kept = class_nms(*tensors, one_class, options.agnostic_iou, len(scores)).numpy()
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept_boxes = Boxes(boxes, scores, labels, job.shape)
        return Results(job.pixels, job.image.name, self.model.names, kept_boxes, job.milliseconds)


def long_side(piece: Piece, options: PredictOptions) -> int:
    """Return the long side at which the network sees a piece, px."""
    height, width = piece.pixels.shape[:2]
    return options.long_side(piece.job.cut, height, width)


def scaled(side: int, scale: float) -> int:
    """Return the long side of a view of another size, px."""
    return max(round(side * scale), 1)


def _batches(every: Iterable[Piece], options: PredictOptions) -> Iterator[list[Piece]]:
    """Yield pieces that follow each other and are padded alike, up to `batch` at a time.

    Points in the padding of a larger neighbour would see what the image alone does not have; so
    what is found does not depend on the batch.
    """
    scales = sorted({view.scale for view in options.views})

    def padded(piece: Piece) -> list[tuple[int, int]]:
        height, width = piece.pixels.shape[:2]
        side = long_side(piece, options)
        return [padded_shape(height, width, scaled(side, scale)) for scale in scales]

    for _, alike in groupby(every, padded):
        while batch := list(islice(alike, options.batch)):
            yield batch
