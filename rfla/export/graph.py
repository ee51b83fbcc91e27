"""The whole way from pixels to boxes as one module, which can be traced.

Shapes: B images, (H, W) px of the padded batch, K candidates of an image, C classes, M detections
of an image. Boxes are xyxy px of the input.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from rfla.cfg.model_schema import NormalizeConfig
from rfla.export.grid import trace_grids
from rfla.export.nms import DEAD, best_of_classes
from rfla.export.two_stage import roi_candidates, trace_pooling
from rfla.models.detector import DenseDetector, Detector
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.priors import take
from rfla.ops.boxes import reach_into
from rfla.ops.nms import Candidates, DetectionLimits


class DetectionGraph(nn.Module):
    """A detector with its normalisation, decoding and suppression.

    Args:
        net: is copied; its weights are those that are exported.
        normalize: how pixels become its input.
        limits: which detections are kept.
        suppress: whether NMS is a part of the graph.
        half: compute backbone, neck and heads in float16, all else in float32.
    """

    def __init__(
        self,
        net: Detector,
        normalize: NormalizeConfig,
        limits: DetectionLimits,
        *,
        suppress: bool = True,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.net = deepcopy(net).cpu().eval()
        trace_grids(self.net)
        trace_pooling(self.net)
        self.dtype = torch.float16 if half else torch.float32
        self.net.to(self.dtype)
        self.bgr, self.limits, self.suppress = normalize.channels == "bgr", limits, suppress
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(normalize.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalize.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: (B, 3, H, W) RGB from 0 to 255, uint8 or float32, padded on the right and at
                the bottom.
            image_sizes: (B, 2) int64 height and width of each image before padding, px.

        Returns:
            With suppression boxes (B, M, 4), scores (B, M) from high to low, labels (B, M) int64
            and counts (B,) int64; beyond its count an image has zeros, and -1 as label. Without:
            boxes (B, K, 4) or (B, K, C, 4) and scores (B, K, C), 0 below the thresholds.
        """
        pixels = self.normalized(images, image_sizes)
        boxes, class_scores, factors = self.candidates(pixels, image_sizes)
        # two thresholds, as in `rfla.ops.nms.select_detections`
        scores = class_scores if factors is None else class_scores * factors[..., None]
        alive = (class_scores > self.limits.score_thr) & (scores >= self.limits.conf)
        if not self.suppress:
            return boxes, torch.where(alive, scores, 0.0)
        scores = torch.where(alive, scores, DEAD)
        boxes, scores, labels = best_of_classes(
            boxes, scores, self.limits.nms_iou, self.limits.max_det
        )
        # What lies beside an image goes last, as `rfla.engine.inference` leaves it out.
        height, width = image_sizes.unbind(1)
        shows = reach_into(boxes, height[:, None], width[:, None])
        scores, order = torch.where(shows, scores, DEAD).topk(self.limits.max_det, dim=1)
        found = scores > DEAD / 2
        boxes = take(boxes, order) * found[..., None]
        labels = torch.where(found, labels.gather(1, order), -1)
        return boxes, scores.clamp(min=0), labels, found.to(torch.int64).sum(dim=1)

    def normalized(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """Pixels to the network's input, zero where padded."""
        pixels = images.to(torch.float32)
        if self.bgr:
            pixels = pixels[:, [2, 1, 0]]
        pixels = (pixels - self.mean) / self.std
        rows, columns = (torch.arange(side) for side in images.shape[-2:])
        inside = (rows[None, :, None] < image_sizes[:, 0, None, None]) & (
            columns[None, None] < image_sizes[:, 1, None, None]
        )  # (B, H, W)
        return torch.where(inside[:, None], pixels, 0.0)

    def candidates(self, pixels: Tensor, image_sizes: Tensor) -> Candidates:
        """What the network found before suppression, decoded in float32."""
        raw = self.net.raw(pixels.to(self.dtype))
        raw = {name: [level.float() for level in levels] for name, levels in raw.items()}
        if isinstance(self.net, DenseDetector):
            return self.net.candidates(raw, image_sizes)
        assert isinstance(self.net, FasterRCNN)
        return roi_candidates(self.net, raw, image_sizes)
