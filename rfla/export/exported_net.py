"""An exported network, called as a detector is, whichever library runs it.

Shapes: B images, (H, W) px of the padded batch, N detections of an image, M places for them, C
classes. Boxes are xyxy px.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from rfla.engine.inference import PixelNet
from rfla.errors import ConfigError, WeightsError
from rfla.export.input_shape import InputShape
from rfla.ops.nms import DetectionLimits, ImageDetections, select_detections


class Runner(Protocol):
    """A library with a graph that it runs.

    Attributes:
        name: of the file, for messages.
        shape: what the graph takes.
        least_side: height and width that padded images have at least, px.
        suppresses: whether NMS is a part of the graph.
    """

    name: str
    shape: InputShape
    least_side: int
    suppresses: bool

    def run(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """Run the graph on images (B, 3, H, W) and sizes (B, 2) int64; returns its outputs."""


class ExportedNet(PixelNet):
    """An exported network.

    Args:
        runner: has the graph.
        num_classes: C.
        exported: which detections the graph keeps.
    """

    def __init__(self, runner: Runner, num_classes: int, exported: DetectionLimits) -> None:
        super().__init__()
        self.runner, self.num_classes = runner, num_classes
        self.exported, self._limits = exported, exported

    def forward(
        self, images: Tensor, *, image_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Detect.

        Args:
            images: (B, 3, H, W) uint8 RGB, padded on the right and at the bottom.
            image_sizes: B pairs (height, width) before padding, px.

        Raises:
            ConfigError: the graph was exported for other sizes.
            WeightsError: the graph fails, or returns what no detector does.
        """
        pixels = self._padded(images.cpu())
        sizes = torch.tensor(image_sizes, dtype=torch.int64)
        batch = self.runner.shape.batch or len(pixels)
        found: list[ImageDetections] = []
        for first in range(0, len(pixels), batch):
            found += self._run(pixels[first : first + batch], sizes[first : first + batch])
        return found

    def _run(self, pixels: Tensor, sizes: Tensor) -> list[ImageDetections]:
        """Detect in as many images as the graph takes; missing ones are filled up."""
        count, shape = len(pixels), self.runner.shape
        if shape.batch is not None and count < shape.batch:
            filling = shape.batch - count
            pixels = torch.cat([pixels, pixels.new_zeros(filling, *pixels.shape[1:])])
            sizes = torch.cat([sizes, sizes.new_ones(filling, 2)])
        if shape.as_float:
            pixels = pixels.float()
        outputs = self.runner.run(pixels, sizes)
        self._check_outputs(outputs, len(pixels))
        return [self._detections([output[image] for output in outputs]) for image in range(count)]

    def _detections(self, outputs: list[Tensor]) -> ImageDetections:
        """What is wanted of the outputs for one image."""
        if not self.runner.suppresses:
            boxes, scores = outputs
            return select_detections(boxes, scores, None, self.limits)
        boxes, scores, labels, count = outputs
        wanted = (scores >= self.limits.conf).nonzero().squeeze(1)
        kept = wanted[: min(int(count), self.limits.max_det)]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}

    def _check_outputs(self, outputs: list[Tensor], batch: int) -> None:
        """Refuse what a graph of `DetectionGraph` cannot return."""
        boxes, scores = outputs[:2]
        if self.runner.suppresses:
            labels, counts = outputs[2:]
            places = scores.shape[-1]
            shapes = [(batch, places, 4), (batch, places), (batch, places), (batch,)]
        else:
            places = scores.shape[1] if scores.dim() == 3 else 0
            own = (self.num_classes,) if boxes.dim() == 4 else ()
            shapes = [(batch, places, *own, 4), (batch, places, self.num_classes)]
        good = [tuple(output.shape) for output in outputs] == shapes
        good = good and bool(boxes.isfinite().all() and scores.isfinite().all())
        if good and self.runner.suppresses:
            inside = (labels >= -1) & (labels < self.num_classes)
            found = torch.arange(places) < counts[:, None]
            good = bool(inside.all() and (labels[found] >= 0).all())
        if not good:
            raise WeightsError(
                f"{self.runner.name}: its graph returns no detections of {self.num_classes} classes"
            )

    @property
    def limits(self) -> DetectionLimits:
        """Which detections are wanted; those that the graph does not keep raise a ConfigError."""
        return self._limits

    @limits.setter
    def limits(self, limits: DetectionLimits) -> None:
        inside = self.exported
        least = min(limits.conf, limits.score_thr)  # `conf` of an export lowers both
        fixed = [
            ("conf", limits.conf, inside.conf, least, limits.conf < inside.conf),
            (
                "test.score_thr",
                limits.score_thr,
                inside.score_thr,
                least,
                limits.score_thr < inside.score_thr,
            ),
        ]
        if self.runner.suppresses:
            iou, most = limits.nms_iou, limits.max_det
            fixed += [
                ("iou", iou, inside.nms_iou, iou, iou != inside.nms_iou),
                ("max_det", most, inside.max_det, most, most > inside.max_det),
            ]
        for key, value, has, again, lost in fixed:
            if lost:
                option = "conf" if key == "test.score_thr" else key
                raise ConfigError(
                    f"{key}={value:g}: {self.runner.name} was exported with {key}={has:g}, "
                    f"which its graph cannot undo; export it again with {option}={again:g}"
                )
        self._limits = limits

    def _padded(self, images: Tensor) -> Tensor:
        """Pad to the size that the graph was made for, or to the least that it takes."""
        height, width = images.shape[-2:]
        side, least = self.runner.shape.side, self.runner.least_side
        if side is not None and max(height, width) > side:
            raise ConfigError(
                f"imgsz={max(height, width)}: {self.runner.name} was exported for images of "
                f"{side} x {side} px; give that imgsz, or export with dynamic=true"
            )
        bottom, right = ((side or max(own, least)) - own for own in (height, width))
        return functional.pad(images, (0, right, 0, bottom)) if bottom or right else images
