"""Run an exported network by onnxruntime, called as a detector is.

Shapes: B images, (H, W) px of the padded batch, N detections of an image. Boxes are xyxy px.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfla.cfg import saved_model_config
from rfla.cfg.layers import flatten
from rfla.cfg.model_schema import ModelConfig
from rfla.engine.inference import PixelNet
from rfla.engine.model_source import SourceModel, trained_scale
from rfla.errors import ConfigError, WeightsError
from rfla.export.extra import require
from rfla.models.limits import build_limits
from rfla.models.weights import read_metadata
from rfla.ops.nms import DetectionLimits, ImageDetections, select_detections

FREE = ("test.conf", "test.score_thr", "test.nms_iou", "test.max_det", "normalize.range")
"""Settings that may differ from those of the export: `OnnxNet` checks what the graph allows."""


class OnnxNet(PixelNet):
    """An exported network.

    Args:
        path: the ONNX file.
        exported: which detections its graph keeps.
        device: where to compute.

    Attributes:
        limits: which detections are wanted.

    Raises:
        WeightsError: onnxruntime cannot read the file.
        ConfigError: onnxruntime, or its part for the device, is not installed.
    """

    def __init__(self, path: str | Path, exported: DetectionLimits, device: torch.device) -> None:
        super().__init__()
        self.path, self.exported, self.limits = str(path), exported, exported
        self.session = _session(self.path, device)
        images = self.session.get_inputs()[0]
        self.batch, _, self.height, self.width = (
            side if isinstance(side, int) else None for side in images.shape
        )
        self.as_float = images.type == "tensor(float)"
        self.suppresses = len(self.session.get_outputs()) == 4

    def forward(
        self, images: Tensor, *, image_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Detect.

        Args:
            images: (B, 3, H, W) uint8 RGB, padded on the right and at the bottom.
            image_sizes: B pairs (height, width) before padding, px.

        Raises:
            ConfigError: the graph was exported for other sizes, or keeps less than is wanted.
        """
        self._check_limits()
        pixels = self._padded(images.cpu())
        sizes = torch.tensor(image_sizes, dtype=torch.int64)
        found: list[ImageDetections] = []
        for first in range(0, len(pixels), self.batch or len(pixels)):
            part = slice(first, first + (self.batch or len(pixels)))
            found += self._run(pixels[part], sizes[part])
        return found

    def _run(self, pixels: Tensor, sizes: Tensor) -> list[ImageDetections]:
        """Detect in as many images as the graph takes; missing ones are filled up."""
        count = len(pixels)
        if self.batch is not None and count < self.batch:
            filling = self.batch - count
            pixels = torch.cat([pixels, pixels.new_zeros(filling, *pixels.shape[1:])])
            sizes = torch.cat([sizes, sizes.new_ones(filling, 2)])
        if self.as_float:
            pixels = pixels.float()
        try:
            feed = {"images": pixels.numpy(), "image_sizes": sizes.numpy()}
            outputs = [torch.from_numpy(array) for array in self.session.run(None, feed)]
        except Exception as error:  # onnxruntime has its own classes, and no common one
            raise WeightsError(f"{self.path}: onnxruntime: {_one_line(error)}") from None
        return [self._detections([output[image] for output in outputs]) for image in range(count)]

    def _detections(self, outputs: list[Tensor]) -> ImageDetections:
        """What is wanted of the outputs for one image."""
        if not self.suppresses:
            boxes, scores = outputs
            return select_detections(boxes, scores, None, self.limits)
        boxes, scores, labels, count = outputs
        wanted = (scores >= self.limits.conf).nonzero().squeeze(1)
        kept = wanted[: min(int(count), self.limits.max_det)]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}

    def _check_limits(self) -> None:
        wanted, exported = self.limits, self.exported
        fixed = [
            ("conf", wanted.conf, exported.conf, wanted.conf < exported.conf),
            (
                "test.score_thr",
                wanted.score_thr,
                exported.score_thr,
                wanted.score_thr < exported.score_thr,
            ),
        ]
        if self.suppresses:
            fixed += [
                ("iou", wanted.nms_iou, exported.nms_iou, wanted.nms_iou != exported.nms_iou),
                ("max_det", wanted.max_det, exported.max_det, wanted.max_det > exported.max_det),
            ]
        for key, value, inside, lost in fixed:
            if lost:
                raise ConfigError(
                    f"{key}={value:g}: {self.path} was exported with {key}={inside:g}, which its "
                    f"graph cannot undo; export it again with {key}={value:g}"
                )

    def _padded(self, images: Tensor) -> Tensor:
        """Pad to the size that the graph was made for, where it was made for one."""
        if self.height is None or self.width is None:
            return images
        height, width = images.shape[-2:]
        if height > self.height or width > self.width:
            raise ConfigError(
                f"imgsz={max(height, width)}: {self.path} was exported for images of "
                f"{self.width} x {self.height} px; give that imgsz, or export with dynamic=true"
            )
        padded = images.new_zeros(*images.shape[:2], self.height, self.width)
        padded[..., :height, :width] = images
        return padded


def load_exported(path: str | Path, config: ModelConfig, device: torch.device) -> SourceModel:
    """Open an exported network with what its metadata says of it.

    Args:
        path: an ONNX file of `rfla export`.
        config: its settings with other values where a person gave them (`conf=0.3`).
        device: where to compute.

    Raises:
        WeightsError: no such file, or not one of ours.
        ConfigError: a setting that is fixed in the graph, or onnxruntime is missing.
    """
    metadata = read_metadata(path)
    exported = saved_model_config(metadata["model"], f"{path} (metadata)")
    own, wanted = (flatten(one.model_dump(), ModelConfig) for one in (exported, config))
    for key, setting in wanted.items():
        if key not in FREE and setting.value != own[key].value:
            raise ConfigError(f"{key}: is fixed in {path}; export it again with other weights")
    net = OnnxNet(path, build_limits(exported.test), device)
    net.limits = build_limits(config.test)
    return SourceModel(
        net,
        config,
        tuple(metadata["names"]),
        imgsz=metadata.get("imgsz"),
        scale=trained_scale(metadata),
    )


def _session(path: str, device: torch.device) -> Any:
    onnxruntime = require("onnxruntime")
    wanted = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}.get(device.type)
    if wanted not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"device={device}: this onnxruntime has no provider for it; use device=cpu, or install "
            "onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    providers = [(wanted, {"device_id": device.index or 0}), "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=providers if device.type == "cuda" else [wanted]
        )
    except Exception as error:  # onnxruntime has its own classes, and no common one
        raise WeightsError(f"{path}: onnxruntime: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
