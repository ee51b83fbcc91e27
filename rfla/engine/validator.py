"""Validation: a network over a split, its detections in original pixels, and their figures.

Shapes: B images of a batch, N detections of one image, D of all images. Boxes are xyxy px.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from rfla.cfg.model_schema import NormalizeConfig
from rfla.data import Batch, BoxIndex
from rfla.engine.model_source import apply_mapping
from rfla.metrics import Detections, GroundTruth
from rfla.ops.normalize import normalize_images


@dataclass
class Speed:
    """Seconds spent in each stage over all images."""

    images: int = 0
    load: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    gather: float = 0.0

    def per_image(self) -> dict[str, float]:
        """Return milliseconds an image for each stage."""
        stages = ("load", "preprocess", "inference", "gather")
        return {stage: 1000 * getattr(self, stage) / max(self.images, 1) for stage in stages}


@dataclass
class Collected:
    """Detections of many images while they come in: one array for each batch."""

    image_index: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, index: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Add one image's detections."""
        self.image_index.append(np.full(len(scores), index, dtype=np.int64))
        self.boxes.append(boxes.double().numpy())
        self.scores.append(scores.double().numpy())
        self.labels.append(labels.numpy())

    def detections(self) -> Detections:
        """Return everything as flat arrays."""
        if not self.scores:
            empty = np.zeros(0)
            return Detections(empty.astype(np.int64), np.zeros((0, 4)), empty, empty.astype(np.int64))
        return Detections(
            np.concatenate(self.image_index),
            np.concatenate(self.boxes),
            np.concatenate(self.scores),
            np.concatenate(self.labels),
        )


def prepare_images(batch: Batch, normalize: NormalizeConfig) -> Tensor:
    """Return the network's input (B, 3, H, W) float32 for a batch that is already on its device."""
    return normalize_images(batch.images, batch.image_sizes, normalize.mean, normalize.std, normalize.channels)


def boxes_to_original(boxes: Tensor, scale: Tensor, orig_hw: Sequence[int]) -> Tensor:
    """Move boxes (N, 4) from px of the network's input to px of the original image, clipped to it.

    Args:
        boxes: (N, 4) xyxy.
        scale: (2,) input px for each original px, x and y.
        orig_hw: Height and width of the original image.
    """
    scaled = boxes / scale.repeat(2).to(boxes)
    height, width = float(orig_hw[0]), float(orig_hw[1])
    return scaled.clamp(min=0).minimum(torch.tensor([width, height, width, height], device=boxes.device))


@torch.inference_mode()
def detect(
    net: nn.Module,
    loader: Iterable[Batch],
    index: BoxIndex,
    normalize: NormalizeConfig,
    device: torch.device,
    dtype: torch.dtype | None = None,
    mapping: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Detections, Speed]:
    """Run a network over a split.

    Args:
        net: The network; it is put into evaluation mode.
        loader: Batches of the split.
        index: The split, for the images' original sizes.
        normalize: How pixels become input.
        device: Where to compute.
        dtype: Half precision for the network's body; boxes and scores stay float32.
        mapping: The data's class for each class of the model (`class_mapping`); None where they are the same.
        progress: Called with the number of images done.

    Returns:
        Detections in original px, and the time of each stage.
    """
    net.eval()
    found, speed = Collected(), Speed()
    clock = time.perf_counter()
    for batch in loader:
        loaded = time.perf_counter()
        batch = batch.to(device, non_blocking=True)
        images = prepare_images(batch, normalize)
        prepared = time.perf_counter()
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = net(images, image_sizes=batch.image_sizes)
        outputs = [{key: tensor.cpu() for key, tensor in output.items()} for output in outputs]
        inferred = time.perf_counter()
        for row, scale, output in zip(batch.indices.tolist(), batch.scales.cpu(), outputs, strict=True):
            boxes = boxes_to_original(output["boxes"], scale, index.image_hw[row])
            scores, labels = output["scores"], output["labels"]
            if mapping is not None:
                labels = apply_mapping(labels, mapping)
                keep = labels >= 0
                boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
            found.add(row, boxes, scores, labels)
        now = time.perf_counter()
        speed.images += len(outputs)
        speed.load += loaded - clock
        speed.preprocess += prepared - loaded
        speed.inference += inferred - prepared
        speed.gather += now - inferred
        clock = now
        if progress is not None:
            progress(len(outputs))
    return found.detections(), speed


def ground_truth(index: BoxIndex) -> GroundTruth:
    """Return a split's boxes in the form that `evaluate_boxes` takes."""
    counts = np.diff(index.box_start)
    return GroundTruth(
        image_ids=index.image_ids,
        image_index=np.repeat(np.arange(len(counts)), counts),
        boxes=index.boxes.astype(np.float64),
        labels=index.labels,
        area=index.area,
        ignore=index.ignore,
        crowd=index.crowd,
        names=tuple(index.names),
        category_ids=tuple(index.category_ids),
    )
