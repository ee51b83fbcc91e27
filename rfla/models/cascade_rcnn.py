"""Cascade R-CNN (arXiv 1712.00726): box heads in a row, each on the boxes of the one before.

Each stage asks more IoU of a positive than the one before (`roi.pos_iou`) and weighs less
(`roi.stage_weights`). `raw`, `assign` and the proposals are those of `faster_rcnn.py`; `loss` and
`decode` are here, over the parts of a stage in `heads/roi.py`.

Shapes: B images, K boxes of one image, N boxes of all images, C classes. Boxes are xyxy in px of
the network input.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from rfla.cfg.model_schema import ModelConfig
from rfla.models.detector import ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.faster_rcnn import FasterRCNN, image_seeds
from rfla.ops.nms import ImageDetections


class CascadeRCNN(FasterRCNN):
    """A Faster R-CNN whose boxes pass through several stages, or through one.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        rpn_head: levels to proposals.
        roi_head: a box head and a rule for each stage.
        num_classes: without background.
    """

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build it with random weights, on P2 to P6, a stage for each value of `roi.pos_iou`."""
        return cls._on_pyramid(config, num_classes)

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_rpn_cls` and `loss_rpn_bbox`, then `s0.loss_cls`, `s0.loss_bbox`, `s1. ...`."""
        matched = self.assign(raw, targets, image_sizes)
        seeds = image_seeds(targets)
        losses = self.rpn_head.loss(raw, matched, targets, seeds)

        boxes = self.proposals(raw, image_sizes)
        for index, stage in enumerate(self.roi_head.stages):
            samples = self.roi_head.assign(boxes, targets, seeds, index)
            sampled = [sample.boxes for sample in samples]
            logits, offsets = self.roi_head(raw["pyramid"], sampled, index)
            for name, value in self.roi_head.loss(samples, logits, offsets, index).items():
                losses[f"s{index}.{name}"] = value * stage.weight
            if index + 1 == len(self.roi_head.stages):
                break

            # A stage hands on where it moved its RoIs, as their true class where they have one.
            # The next one adds the true boxes itself, so those in the sample stay behind.
            labels = torch.cat([sample.labels for sample in samples])
            labels = torch.where(labels == self.num_classes, best_class(logits), labels)
            moved = self.roi_head.move(sampled, labels, offsets, image_sizes, index)
            boxes = [part[own.proposed] for part, own in zip(moved, samples, strict=True)]
        return StepLosses(losses, step_counts((matched >= 0).sum(), targets))

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image.

        Boxes are those of the last stage, scores those of the mean logits of all stages.
        """
        stages = len(self.roi_head.stages)
        boxes = self.proposals(raw, image_sizes)
        logits, offsets = self.roi_head(raw["pyramid"], boxes)
        total = logits
        for index in range(1, stages):
            boxes = self.roi_head.move(boxes, best_class(logits), offsets, image_sizes, index - 1)
            logits, offsets = self.roi_head(raw["pyramid"], boxes, index)
            total = total + logits
        return self.roi_head.decode(boxes, total / stages, offsets, image_sizes, stages - 1)


def best_class(logits: Tensor) -> Tensor:
    """(N, C + 1) logits, background last, to the best class (N,) that is not background."""
    return logits[:, :-1].argmax(dim=1)
