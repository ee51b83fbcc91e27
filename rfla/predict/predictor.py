"""One network over images of any size: images in, `Results` out.

Shapes: B pieces of a batch, M slices of an image, N detections of one image. Boxes are xyxy px.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.model_schema import ModelConfig
from rfla.data.images import STRIDE, resize_long_side, resized_shape
from rfla.data.pixel_range import Range
from rfla.engine.device import autocast_dtype
from rfla.engine.inference import Inference, Speed
from rfla.engine.model_source import SourceModel
from rfla.errors import ConfigError, DataError, did_you_mean
from rfla.models.limits import build_limits
from rfla.ops.nms import DetectionLimits, class_nms
from rfla.predict.notes import Notes
from rfla.predict.slices import Slices, whole
from rfla.predict.sources import SourceImage
from rfla.predict.tiles import Integers
from rfla.results import Boxes, Results

READERS = 4  # images are read ahead by threads; decoding releases the interpreter lock


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


@dataclass
class Job:
    """An image on its way: its slices, and what was found in those that are done.

    Attributes:
        image: Where it comes from.
        pixels: (H, W, 3) uint8 RGB.
        tiles: (M, 4) xyxy px.
        found: Boxes, scores and labels of the slices so far, px of each slice.
        milliseconds: Time of each stage so far.
    """

    image: SourceImage
    pixels: np.ndarray
    tiles: Integers
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image, px."""
        return (self.pixels.shape[0], self.pixels.shape[1])

    def add(self, output: dict[str, Tensor], milliseconds: dict[str, float]) -> None:
        """Take the detections of the next slice."""
        boxes, scores = output["boxes"].float().numpy(), output["scores"].float().numpy()
        self.found.append((boxes, scores, output["labels"].numpy()))
        for stage, value in milliseconds.items():
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + value


class Piece(NamedTuple):
    """A slice of an image, or the whole of it."""

    job: Job
    pixels: np.ndarray


class Predictor:
    """Runs one network over images of any size.

    Args:
        model: The network and its classes.
        device: Where to compute.
        amp: Half precision on a GPU.
    """

    def __init__(self, model: SourceModel, device: torch.device, amp: bool | str = True):
        self.model = model
        net = model.net.to(device).eval()
        self.inference = Inference(net, model.config.normalize, device, autocast_dtype(device, amp))

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
        waiting: deque[Job] = deque()
        pieces = _pieces(_read_ahead(images, options, notes), options, notes, waiting)
        for batch in _batches(pieces, options):
            self._run(batch, options)
            while waiting and len(waiting[0].found) == len(waiting[0].tiles):
                yield self._finish(waiting.popleft(), options, notes)

    def _run(self, batch: Sequence[Piece], options: PredictOptions) -> None:
        """Detect in a batch, and give each piece's detections to its image."""
        speed = Speed()
        resized = [resize_long_side(piece.pixels, options.imgsz) for piece in batch]
        outputs = self.inference(
            _stacked([pixels for pixels, _ in resized]),
            [(pixels.shape[0], pixels.shape[1]) for pixels, _ in resized],
            torch.tensor([scale for _, scale in resized], dtype=torch.float32),
            [piece.pixels.shape[:2] for piece in batch],
            speed,
        )
        times = speed.per_image()
        share = {
            "preprocess": times["preprocess"],
            "inference": times["inference"],
            "postprocess": times["gather"],
        }
        for piece, output in zip(batch, outputs, strict=True):
            piece.job.add(output, share)

    def _finish(self, job: Job, options: PredictOptions, notes: Notes) -> Results:
        """Return one image's detections, in px of the image."""
        notes.full += any(len(found[1]) >= options.max_det for found in job.found)
        if options.slices is None:
            boxes, scores, labels = job.found[0]
        else:
            boxes, scores, labels = options.slices.merged(job.found, job.tiles, job.shape)
        keep = scores >= options.conf
        if options.classes:
            keep &= np.isin(labels, options.classes)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        if options.agnostic_iou is not None:
            tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
            one_class = torch.zeros(len(scores), dtype=torch.int64)
            kept = class_nms(*tensors, one_class, options.agnostic_iou, len(scores)).numpy()
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        found = Boxes(boxes, scores, labels, job.shape)
        return Results(job.pixels, job.image.name, self.model.names, found, job.milliseconds)


def set_limits(net: nn.Module, config: ModelConfig) -> None:
    """Let a network keep other detections: score, NMS and number of `config.test`."""
    limits = build_limits(config.test)
    for part in net.modules():
        if isinstance(getattr(part, "limits", None), DetectionLimits):
            setattr(part, "limits", limits)  # noqa: B010  a plain attribute, no submodule


def _stacked(images: Sequence[np.ndarray]) -> Tensor:
    """Return (B, 3, H, W) uint8, padded right and below to multiples of the stride."""
    height = -(-max(image.shape[0] for image in images) // STRIDE) * STRIDE
    width = -(-max(image.shape[1] for image in images) // STRIDE) * STRIDE
    stacked = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for planes, image in zip(stacked, images, strict=True):
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        planes[:, : image.shape[0], : image.shape[1]] = pixels.permute(2, 0, 1)
    return stacked


def _batches(pieces: Iterable[Piece], options: PredictOptions) -> Iterator[list[Piece]]:
    """Yield pieces that follow each other and are padded alike, up to `batch` at a time.

    Points in the padding of a larger neighbour would see what the image alone does not have; so
    what is found does not depend on the batch.
    """

    def padded(piece: Piece) -> tuple[int, ...]:
        height, width = piece.pixels.shape[:2]
        sides = resized_shape(height, width, options.imgsz)
        return tuple(-(-side // STRIDE) for side in sides)

    for _, alike in groupby(pieces, padded):
        while batch := list(islice(alike, options.batch)):
            yield batch


def _pieces(
    read: Iterable[tuple[SourceImage, np.ndarray]],
    options: PredictOptions,
    notes: Notes,
    waiting: deque[Job],
) -> Iterator[Piece]:
    """Yield the slices of all images one after the other; images wait for the last of theirs."""
    for image, pixels in read:
        height, width = pixels.shape[:2]
        if options.slices is None:
            tiles = whole(height, width)
            if max(height, width) > options.imgsz:
                notes.shrink((height, width))
        else:
            tiles = options.slices.tiles(height, width, options.imgsz)
        job = Job(image, pixels, tiles)
        waiting.append(job)
        for x1, y1, x2, y2 in tiles.tolist():
            yield Piece(job, pixels[y1:y2, x1:x2])


def _read_ahead(
    images: Iterable[SourceImage], options: PredictOptions, notes: Notes
) -> Iterator[tuple[SourceImage, np.ndarray]]:
    """Yield the images that could be read, in order, while threads read the next ones."""

    def read(image: SourceImage) -> tuple[np.ndarray | None, list[str]]:
        remarks: list[str] = []
        try:
            return image.read(options.value_range, remarks), remarks
        except DataError as error:
            return None, [str(error)]

    remaining = iter(images)
    pending: deque[tuple[SourceImage, Future[Any]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            free = max(options.batch, READERS) - len(pending)
            pending += [(image, pool.submit(read, image)) for image in islice(remaining, free)]
            if not pending:
                return
            image, future = pending.popleft()
            pixels, remarks = future.result()
            if pixels is None:
                notes.skipped += remarks
                continue
            notes.images += 1
            notes.remarks.update(remarks)
            yield image, pixels


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
