"""MaxIoU assigner of Faster R-CNN, RetinaNet and the RoI heads, with low-quality matching.

Shapes: B images, G boxes of one image, P priors (a grid or plain boxes such as RoIs), I ignore
boxes. xyxy px. Semantics of MMDetection 2.x, computed a bounded number of boxes at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.arguments import (
    BACKGROUND,
    IGNORED,
    OneImageAssigner,
    box_rows,
    pairwise_intersection,
    prior_boxes,
    valid_priors,
)
from rfla.assign.chunks import chunks
from rfla.assign.ignore_regions import IGNORE_OVERLAP, MIN_AREA, greatest_share
from rfla.assign.prior_grid import PriorGrid


def pairwise_iou(gt_boxes: Tensor, priors: Tensor) -> Tensor:
    """(G, P) IoU; a union below 1e-6 px^2 counts as 1e-6."""
    intersection = pairwise_intersection(gt_boxes, priors)
    gt_area = (gt_boxes[:, 2] - gt_boxes[:, 0]) * (gt_boxes[:, 3] - gt_boxes[:, 1])
    area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    union = (gt_area[:, None] + area).sub_(intersection).clamp_(min=MIN_AREA)
    return intersection.div_(union)


@dataclass(eq=False)
class MaxIoUAssigner(OneImageAssigner):
    """Give each prior the box it overlaps most, if it overlaps it enough.

    Attributes:
        pos_iou_thr: IoU from which a prior is positive.
        neg_iou_thr: IoU below which a prior is background; between the two it is ignored.
        min_pos_iou: With `match_low_quality`, the priors of highest IoU of a box are positive from
            this IoU on. At 0 a box that overlaps no prior (one outside of the image) takes all of
            them, as in MMDetection; the loader leaves such boxes out.
        match_low_quality: Whether a box takes its best priors even below `pos_iou_thr`; where two
            boxes do, the later one wins.
        ignore_iof_thr: A prior of which more than this share lies in an ignore box is ignored,
            positive or not; None: never.
    """

    pos_iou_thr: float = 0.5
    neg_iou_thr: float = 0.5
    min_pos_iou: float = 0.0
    match_low_quality: bool = True
    ignore_iof_thr: float | None = IGNORE_OVERLAP

    @torch.no_grad()
    def __call__(
        self,
        priors: PriorGrid | Tensor,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of one image.

        Arguments as in `HierarchicalAssigner`, `priors` a grid or (P, 4).

        Returns:
            (P,) int64: index of the box, -1 background, -2 ignored.
        """
        boxes, gt_boxes = prior_boxes(priors), box_rows(gt_boxes)
        usable = valid_priors(priors, image_size, allowed_border)
        if usable is None:
            usable = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        if self.ignore_iof_thr is not None and ignore_boxes is not None:
            usable = usable & (greatest_share(boxes, ignore_boxes) <= self.ignore_iof_thr)
        if len(gt_boxes) == 0 or len(boxes) == 0:
            matched = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
            return matched.masked_fill_(~usable, IGNORED)
        return self._match(boxes, gt_boxes, usable)

    def _match(self, boxes: Tensor, gt_boxes: Tensor, usable: Tensor) -> Tensor:
        """(P,) int64; priors that are not usable are ignored and no box takes them."""
        # The matrix of all boxes and priors would not fit, so boxes come in chunks and the best of
        # those so far is kept for each prior.
        best = torch.full((len(boxes),), -1.0, device=boxes.device)
        nearest_box = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
        low_quality = torch.full_like(nearest_box, BACKGROUND)
        index = torch.arange(len(gt_boxes), device=boxes.device)
        for part in chunks(len(gt_boxes), len(boxes) * 4 * 8):
            scores = pairwise_iou(gt_boxes[part], boxes).masked_fill_(~usable, -1.0)  # (g, P)
            chunk_best, chunk_box = scores.max(dim=0)  # (P,)
            better = chunk_best > best  # of equal overlaps the first box keeps the prior
            best = torch.where(better, chunk_best, best)
            nearest_box = torch.where(better, chunk_box + part.start, nearest_box)
            if self.match_low_quality:
                # A box that reaches no prior well enough takes those it reaches best; of two such
                # boxes the later one gets the prior, as in the authors' code.
                peak = scores.amax(dim=1, keepdim=True)  # (g, 1) best IoU of each box
                takes = (scores == peak) & (peak >= self.min_pos_iou) & usable  # (g, P)
                last_taker = torch.where(takes, index[part, None], BACKGROUND).amax(dim=0)  # (P,)
                low_quality = torch.maximum(low_quality, last_taker)

        # What lies between the two thresholds, or is not usable, stays ignored.
        matched = torch.full_like(nearest_box, IGNORED)
        matched.masked_fill_((best >= 0) & (best < self.neg_iou_thr), BACKGROUND)
        matched = torch.where(best >= self.pos_iou_thr, nearest_box, matched)
        return torch.where(low_quality >= 0, low_quality, matched)
