"""The second stage inside a graph: a fixed number of proposals, pooled without a look at them.

Shapes: B images, R proposals of an image, N = B * R, C classes, L levels. Boxes are xyxy px.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rfla.export.nms import DEAD, best_of_classes
from rfla.models.cascade_rcnn import best_class
from rfla.models.detector import Raw
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.roi_align import RoIAlignPyramid
from rfla.ops.nms import Candidates


def trace_pooling(net: nn.Module) -> None:
    """Let RoIs be pooled by `pool_by_level`."""
    for module in net.modules():
        if isinstance(module, RoIAlignPyramid):
            setattr(module, "forward", partial(pool_by_level, module))  # noqa: B010  one instance's


def pool_by_level(pooler: RoIAlignPyramid, features: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Do as `RoIAlignPyramid.forward`, with counts of RoIs that the graph finds when it runs.

    Args:
        pooler: the geometry.
        features: at least L maps (B, D, H, W).
        rois: (N, 5) image index, then the box.

    Returns:
        (N, D, S, S) float32.
    """
    levels = pooler.levels(rois[:, 1:])
    width, side = features[0].shape[1], pooler.size
    pooled = torch.zeros(rois.shape[0], width, side, side)
    for level, stride in enumerate(pooler.strides):
        index = torch.nonzero(levels == level).squeeze(1)
        own = torch.ops.torchvision.roi_align(
            features[level], rois[index], 1 / stride, side, side, -1, True
        )
        pooled = pooled.index_put((index,), own)
    return pooled


def roi_candidates(net: FasterRCNN, raw: Raw, image_sizes: Tensor) -> Candidates:
    """What the second stage makes of the proposals, before suppression.

    Boxes are those of the last stage, scores those of the mean logits of all stages, as in
    `CascadeRCNN.decode`; Faster R-CNN has one stage. Proposals that are padding score `DEAD`.
    """
    head = net.roi_head
    boxes, alive = proposals(net, raw, image_sizes)
    batch, count = boxes.shape[:2]
    images = torch.arange(batch, dtype=torch.float32)[:, None, None].expand(batch, count, 1)
    limits = image_sizes[:, None].expand(batch, count, 2).reshape(-1, 2)
    flat = boxes.reshape(-1, 4)
    total = torch.zeros(())
    for index, stage in enumerate(head.stages):
        rois = torch.cat((images.reshape(-1, 1), flat), dim=1)
        logits, offsets = head.bbox_head[index](head.pooler(raw["pyramid"], rois))
        total = total + logits
        if index + 1 < len(head.stages):
            own = head.of_class(offsets, best_class(logits))
            flat = stage.coder.decode(flat, own, limits)

    scores = (total / len(head.stages)).softmax(dim=1)[:, :-1].reshape(batch, count, -1)
    scores = torch.where(alive[..., None], scores, DEAD)
    moved = head.stages[-1].coder.decode(flat, offsets, limits)  # (N, 4) or (N, C * 4)
    if moved.shape[1] == 4:
        return Candidates(moved.reshape(batch, count, 4), scores, None)
    return Candidates(moved.reshape(batch, count, net.num_classes, 4), scores, None)


def proposals(net: FasterRCNN, raw: Raw, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Where objects may be: boxes (B, R, 4), best first, and which of them are no padding."""
    rpn = net.rpn_head
    boxes, scores, level_of = rpn.candidates(raw, image_sizes)
    # a level is a "class" of proposals: they suppress others of their level alone
    levels = torch.arange(len(rpn.anchors.strides))
    by_level = torch.where(level_of[:, None] == levels, scores[..., None], DEAD)  # (B, K, L)
    kept, kept_scores, _ = best_of_classes(boxes, by_level, rpn.nms_iou, rpn.max_proposals)
    return kept, kept_scores > DEAD / 2
