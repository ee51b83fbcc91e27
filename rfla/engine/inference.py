"""From batches of images to boxes in px of the originals: normalised, run, scaled back.

Training takes the first step (`prepare_images`), validation and prediction all of them
(`Inference`); `detect` runs a network over a split, `judge` says how good it was.

Shapes: B images of a batch, (H, W) px of the padded batch, N detections of one image.
Boxes are xyxy px.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.model_schema import NormalizeConfig
from rfla.data import Annotations, Batch, DataSpec
from rfla.engine.device import autocast
from rfla.engine.loaders import batches_of
from rfla.engine.model_source import apply_mapping
from rfla.errors import DataError
from rfla.metrics import Detections, Metrics, evaluate_boxes, find_protocol, ground_truth
from rfla.metrics.protocols import Protocol
from rfla.ops.boxes import reach_into
from rfla.ops.normalize import normalize_images

STAGES = ("load", "preprocess", "inference", "gather")


@dataclass
class Speed:
    """Seconds spent in each stage over all images.

    Attributes:
        images: Images done.
        load: Waiting for the loader.
        preprocess: Moving pixels to the device and normalising them.
        inference: The network, NMS included, until its results are on the host.
        gather: Moving boxes back to px of the original images.
    """

    images: int = 0
    load: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    gather: float = 0.0

    def per_image(self) -> dict[str, float]:
        """Return milliseconds an image for each stage."""
        return {stage: 1000 * getattr(self, stage) / max(self.images, 1) for stage in STAGES}


def prepare_images(
    images: Tensor, image_sizes: Sequence[tuple[int, int]], normalize: NormalizeConfig
) -> Tensor:
    """Turn pixels into the network's input, on the device that they are on.

    Args:
        images: (B, 3, H, W) uint8 RGB, padded on the right and at the bottom.
        image_sizes: B pairs (height, width) before padding, px.
        normalize: Mean, standard deviation and channel order that the network was trained with.

    Returns:
        (B, 3, H, W) float32, zero where padded.
    """
    return normalize_images(images, image_sizes, normalize.mean, normalize.std, normalize.channels)


class PixelNet(nn.Module):
    """A network that normalises its input itself: it takes uint8 RGB and not normalised images."""


@dataclass(frozen=True)
class Inference:
    """A network that is ready to detect.

    Attributes:
        net: In evaluation mode, on `device`.
        normalize: How pixels become its input.
        device: Where it computes.
        dtype: Half precision for its body, None for float32; boxes and scores are float32 always.
    """

    net: nn.Module
    normalize: NormalizeConfig
    device: torch.device
    dtype: torch.dtype | None = None

    @torch.inference_mode()
    def __call__(
        self,
        images: Tensor,
        image_sizes: Sequence[tuple[int, int]],
        scales: Tensor,
        original_sizes: Sequence[Sequence[int]],
        speed: Speed | None = None,
    ) -> list[dict[str, Tensor]]:
        """Detect in a batch.

        Args:
            images: (B, 3, H, W) uint8 RGB, padded on the right and at the bottom.
            image_sizes: B pairs (height, width) before padding, px.
            scales: (B, 2) input px for each original px, x and y.
            original_sizes: B pairs (height, width) of the original images, px.
            speed: Gets the time of each stage.

        Returns:
            For each image, on the CPU: boxes (N, 4) xyxy px of the original image, scores (N,)
            from high to low, labels (N,).
        """
        started = time.perf_counter()
        pixels = images.to(self.device, non_blocking=True)
        inputs = pixels
        if not isinstance(self.net, PixelNet):
            inputs = prepare_images(pixels, image_sizes, self.normalize)
        prepared = time.perf_counter()
        with autocast(self.device, self.dtype):
            outputs = self.net(inputs, image_sizes=image_sizes)
        # Copying to the host waits for the device, so the clock sees the whole of the network.
        outputs = [{key: value.cpu() for key, value in output.items()} for output in outputs]
        inferred = time.perf_counter()
        outputs = [
            in_original_px(output, scale, size)
            for output, scale, size in zip(outputs, scales, original_sizes, strict=True)
        ]
        if speed is not None:
            speed.images += len(outputs)
            speed.preprocess += prepared - started
            speed.inference += inferred - prepared
            speed.gather += time.perf_counter() - inferred
        return outputs


def in_original_px(
    output: dict[str, Tensor], scale: Tensor, original_size: Sequence[int]
) -> dict[str, Tensor]:
    """Move the boxes of one image to px of the original; leave out those that lie beside it.

    Args:
        output: `boxes` (N, 4) xyxy px of the network's input, and what else there is of each.
        scale: (2,) input px for each original px, x and y.
        original_size: Height and width of the original image.
    """
    scaled = output["boxes"] / scale.repeat(2).to(output["boxes"])
    height, width = float(original_size[0]), float(original_size[1])
    limits = torch.tensor([width, height, width, height], device=scaled.device)
    boxes = scaled.clamp(min=0).minimum(limits)
    shows = reach_into(boxes, height, width)
    return {key: value[shows] for key, value in (output | {"boxes": boxes}).items()}


def detect(
    inference: Inference,
    loader: Iterable[Batch],
    index: Annotations,
    mapping: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Detections, Speed]:
    """Run a network over a split.

    Args:
        inference: The network; it is put into evaluation mode.
        loader: Batches of the split.
        index: The split, for the images' original sizes.
        mapping: The data's class for each class of the model, -1 where the data lacks it; None
            where they are the same.
        progress: Called with the number of images done.

    Returns:
        Detections in original px, image by image, and the time of each stage.
    """
    inference.net.eval()
    found: list[Detections] = []
    speed = Speed()
    clock = time.perf_counter()
    for batch in batches_of(loader):
        speed.load += time.perf_counter() - clock
        rows = batch.indices.tolist()
        sizes = index.image_hw[batch.indices.numpy()].tolist()
        outputs = inference(batch.images, batch.image_sizes, batch.scales, sizes, speed)

        # The clock of the loader starts once this batch's arrays are stored.
        started = time.perf_counter()
        for row, output in zip(rows, outputs, strict=True):
            found.append(detections_of(row, output, mapping))
        clock = time.perf_counter()
        speed.gather += clock - started
        if progress is not None:
            progress(len(outputs))
    return merge_detections(found), speed


def require_images(index: Annotations, read: int) -> None:
    """Refuse to judge detections of a split of which all processes together read no image.

    Raises:
        DataError: Not one image could be read.
    """
    if len(index) and not read:
        raise DataError(f"{index.name}: not one image of {len(index):,} could be read")


def merge_detections(parts: Sequence[Detections]) -> Detections:
    """Join detections, image by image in the order of the split.

    Each image is in one part, and each part is in that order.
    """
    if len(parts) == 1:
        return parts[0]
    joined = join_detections(parts)
    # However images were dealt out and batched, equal scores keep one order.
    order = np.argsort(joined.image_index, kind="stable")
    return Detections(
        joined.image_index[order], joined.boxes[order], joined.scores[order], joined.labels[order]
    )


def detections_of(row: int, output: dict[str, Tensor], mapping: Sequence[int] | None) -> Detections:
    """Turn one image's output into arrays, with the classes of the data."""
    boxes, scores, labels = output["boxes"], output["scores"], output["labels"]
    if mapping is not None:
        labels = apply_mapping(labels, mapping)
        known = labels >= 0
        boxes, scores, labels = boxes[known], scores[known], labels[known]
    return Detections(
        np.full(len(scores), row, dtype=np.int64),
        boxes.double().numpy(),
        scores.double().numpy(),
        labels.numpy(),
    )


def join_detections(parts: Sequence[Detections]) -> Detections:
    """Concatenate detections in the order given."""
    nothing = Detections(
        np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    )
    every = [nothing, *parts]
    return Detections(
        np.concatenate([part.image_index for part in every]),
        np.concatenate([part.boxes for part in every]),
        np.concatenate([part.scores for part in every]),
        np.concatenate([part.labels for part in every]),
    )


class Judged(NamedTuple):
    """Detections of a split and their figures."""

    metrics: Metrics
    found: Detections


def judge(index: Annotations, found: Detections, protocol: Protocol) -> Judged:
    """Judge detections by the boxes of a split, as its files state them."""
    return Judged(evaluate_boxes(ground_truth(index), found, protocol=protocol), found)


def protocol_of(cfg: Config, spec: DataSpec) -> Protocol:
    """Return the rules of the figures: what was given, what the data set names, else AI-TOD's.

    Size ranges that the data set states replace the protocol's.

    Raises:
        MetricError: No such protocol, or a size range that makes no sense.
    """
    return find_protocol(cfg.protocol or spec.protocol or "aitod", spec.sizes)
