"""Hierarchical label assigner (HLA) of RFLA: each box takes its nearest priors, in two stages.

In the first stage a box takes the priors nearest to it. In the second all fields shrink, and it
takes more of those still free.

Shapes: B images, G boxes of one image, N boxes of all images, P priors of an image, M candidates.
Boxes are xyxy in px of the network input. Everything is float32 and nothing is recorded for
gradients.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND, IGNORED, require_entries
from rfla.assign.candidates import Candidates, Stage, list_candidates, mask_candidates
from rfla.assign.dense import dense_candidates
from rfla.assign.distance import Distance, get_distance
from rfla.assign.explain import AssignmentReport, report
from rfla.assign.ignore_regions import ignore_background
from rfla.assign.images import Images, pack, score_in_chunks
from rfla.assign.prior_grid import PriorGrid, scale_edges
from rfla.assign.windows import Windows, candidates_per_box, window_radius, windows_are_cheaper
from rfla.errors import ConfigError, did_you_mean, shorten
from rfla.names import Conflict

CONFLICTS: tuple[Conflict, ...] = get_args(Conflict)
MAX_EXTRA_CANDIDATES = 2**16
"""Up to so many more candidates cost less than a second pass, so both stages share one window."""


class HierarchicalAssigner:
    """Assign priors to boxes by receptive field distance (RFLA, ECCV 2022, section 3.3).

    Args:
        distance: A name of `rfla.assign.DISTANCES`, or a `Distance`.
        topk: Priors for each box in the first and in the second stage.
        decay: Factor on the sides of the fields before the second stage.
        centers_inside: A positive whose centre is not strictly inside its box becomes background;
            so does an ignored prior that is not strictly inside the first box (as in the authors'
            code).
        ignore_above: A prior that no box takes, but that scores this much for some box in the
            second stage, is ignored; None: never.
        conflict: Who gets a prior that several boxes claim in one stage: `"last"`, the box of
            highest index, as in the authors' code, or `"smallest"`, the box of least area (of equal
            ones the last), as in the paper's text.

    Raises:
        ConfigError: An unknown distance or conflict rule, or a `topk` or `decay` out of range.
    """

    def __init__(
        self,
        distance: str | Distance = "kld",
        topk: Sequence[int] = (3, 1),
        decay: float = 0.9,
        centers_inside: bool = False,
        ignore_above: float | None = 0.8,
        conflict: Conflict = "last",
    ) -> None:
        if conflict not in CONFLICTS:
            hint = did_you_mean(conflict, CONFLICTS)
            raise ConfigError(
                f"assigner.conflict: '{conflict}' is not one of {', '.join(CONFLICTS)}{hint}"
            )
        if not _are_counts(topk):
            raise ConfigError(
                f"assigner.topk: two whole numbers from 1, one for each stage, not {shorten(topk)}"
            )
        if not _is_positive(decay):
            raise ConfigError(f"assigner.decay: a number above 0, not {shorten(decay)}")
        self.distance = get_distance(distance)
        self.topk = (int(topk[0]), int(topk[1]))
        self.decay = float(decay)
        self.centers_inside = centers_inside
        self.ignore_above = ignore_above
        self.conflict = conflict
        self._stages = (
            Stage(0, self.topk[0]),
            Stage(1, self.topk[1], scale=self.decay, ignore_above=ignore_above),
        )

    def __repr__(self) -> str:
        names = ("distance", "topk", "decay", "centers_inside", "ignore_above", "conflict")
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"HierarchicalAssigner({settings})"

    def __call__(
        self,
        priors: PriorGrid | Tensor,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of one image.

        Args:
            priors: A grid on the device of the boxes; plain (P, 4) boxes work too, by the slower
                dense path.
            gt_boxes: (G, 4) xyxy px.
            ignore_boxes: (I, 4) xyxy px: background of which at least half lies in one of them is
                ignored.
            image_size: (height, width) of the image before padding; priors beyond it are ignored.
            allowed_border: Priors that cross the image border by more than this many px are
                ignored; None: none is.

        Returns:
            (P,) int64: index of the box, -1 background, -2 ignored.
        """
        grids = priors if isinstance(priors, PriorGrid) else [priors]
        sizes = None if image_size is None else [image_size]
        return self.batch(grids, [gt_boxes], [ignore_boxes], sizes, allowed_border)[0]

    @torch.no_grad()
    def batch(
        self,
        priors: PriorGrid | Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of several images in one pass.

        Arguments as for one image, with one entry for each.

        Returns:
            (B, P) int64.
        """
        images = pack(priors, gt_boxes, image_sizes, allowed_border)
        require_entries("ignore_boxes", ignore_boxes, len(gt_boxes))
        if not images.num_priors:
            return images.image.new_empty((len(gt_boxes), 0))
        matched = self._match(images)
        if self.centers_inside and len(images.boxes):
            matched = _drop_outside(matched, images)
        if ignore_boxes is None and not images.restricted:
            return matched
        for index, row in enumerate(matched):
            regions = None if ignore_boxes is None else ignore_boxes[index]
            ignore_background(row, images.of_image(index), regions, images.valid(index))
        return matched

    @torch.no_grad()
    def explain(
        self,
        grid: PriorGrid,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> AssignmentReport:
        """Assign the priors of one image and report what became of its boxes.

        `AssignmentReport.merge` joins the reports of a data set.
        """
        matched = self(grid, gt_boxes, ignore_boxes, image_size, allowed_border)
        sizes = None if image_size is None else [image_size]
        images = pack(grid, [gt_boxes], sizes, allowed_border)
        candidates = list(self._candidates(images)) if len(images.boxes) else []
        return report(grid, images.boxes, matched, candidates)

    def _match(self, images: Images) -> Tensor:
        """(B, P) int64 before ignore regions and validity.

        Candidates compete for their priors by one integer, the priority: 0 for background, 1 for
        an ignored prior, then a claim of the second stage by rank of the box, then one of the first
        stage by rank. The largest wins, so the order of the writes does not matter, and one scatter
        serves all boxes of all images.
        """
        total, device = len(images.boxes), images.boxes.device
        num_priors = images.num_priors
        priority = torch.zeros(len(images.counts) * num_priors, dtype=torch.int32, device=device)
        if total == 0:
            background = torch.full_like(priority, BACKGROUND, dtype=torch.int64)
            return background.view(-1, num_priors)

        order = self._order(images.boxes)  # (N,)
        rank = (order if self.conflict == "last" else order.argsort()).to(torch.int32)
        box_priority = torch.stack((rank + (2 + total), rank + 2))  # (2, N), one row for each stage
        first_prior = images.image * num_priors  # (N,)
        written: list[Tensor] = []
        for candidates in self._candidates(images):
            where = _raise_priority(priority, candidates, box_priority, first_prior)
            if _listed_on(device):  # of all candidates it would be no short list
                written.append(where)
            del candidates, where  # before the next chunk takes as much memory again

        # What each priority means: background, ignored, the boxes of stage 2, those of stage 1.
        no_box = torch.arange(BACKGROUND, IGNORED - 1, -1, device=device)
        boxes = images.local[order]
        meaning = torch.cat((no_box, boxes, boxes))  # (2 + 2 N,)
        if not written:
            return meaning.index_select(0, priority).view(-1, num_priors)
        # Most priors are background, so only the others are looked up.
        matched = torch.full_like(priority, BACKGROUND, dtype=torch.int64)
        where = torch.cat(written)
        matched[where] = meaning.index_select(0, priority.index_select(0, where))
        return matched.view(-1, num_priors)

    def _order(self, boxes: Tensor) -> Tensor:
        """(N,) int64: the boxes from the first to yield in a conflict to the last."""
        if self.conflict == "last":
            return torch.arange(len(boxes), device=boxes.device)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return area.sort(descending=True, stable=True).indices

    def _candidates(self, images: Images) -> Iterator[Candidates]:
        """Yield the candidates of both stages by the cheapest exact way."""
        total = len(images.boxes)
        dense = list(self._stages)
        if isinstance(images.priors, PriorGrid):
            radii = self._window_radii(images.priors, total)
            for radius in sorted(set(radii.values())):
                stages = [self._stages[index] for index, own in radii.items() if own == radius]
                yield from self._windowed(images, images.priors, stages, radius)
            dense = [stage for stage in self._stages if stage.index not in radii]
        every_box = torch.arange(total, device=images.boxes.device)
        for stage in dense:
            yield from self._dense(images, stage, every_box)

    def _window_radii(self, grid: PriorGrid, num_boxes: int) -> dict[int, int]:
        """Index -> radius of the window of each stage for which windows pay."""
        radii = {}
        for stage in self._stages:
            radius = window_radius(stage.grid(grid), self.distance, stage.topk, stage.ignore_above)
            if windows_are_cheaper(grid, radius):
                radii[stage.index] = int(radius)

        # For few boxes a call costs more than its scores: one pass with the larger window then.
        widest = max(radii.values(), default=0)
        most = candidates_per_box(grid, widest)
        extra = sum(most - candidates_per_box(grid, own) for own in radii.values())
        return dict.fromkeys(radii, widest) if extra * num_boxes <= MAX_EXTRA_CANDIDATES else radii

    def _windowed(
        self, images: Images, grid: PriorGrid, stages: Sequence[Stage], radius: int
    ) -> Iterator[Candidates]:
        """Yield the candidates of stages that share a window of this radius."""
        grids = [stage.grid(grid) for stage in stages]
        for part, windows in score_in_chunks(
            images, grids, self.distance, radius, images.valid_cells(grid)
        ):
            if _listed_on(images.boxes.device):
                yield from self._listed(images, stages, windows, part.start)
                continue
            for number, stage in enumerate(stages):
                candidates = mask_candidates(windows, number, stage.topk, stage.ignore_above)
                yield candidates.shifted(stages[0].index, part.start)

    def _listed(
        self, images: Images, stages: Sequence[Stage], windows: Windows, first_box: int
    ) -> Iterator[Candidates]:
        """Yield what windows decide, then the boxes that they cannot decide from whole rows."""
        candidates, undecided = list_candidates(
            windows, [stage.topk for stage in stages], [stage.ignore_above for stage in stages]
        )
        yield candidates.shifted(stages[0].index, first_box)
        for stage, boxes in zip(stages, undecided, strict=False):
            # Which priors to ignore is decided: windows always reach those.
            yield from self._dense(images, replace(stage, ignore_above=None), boxes + first_box)

    def _dense(self, images: Images, stage: Stage, chosen: Tensor) -> Iterator[Candidates]:
        """Yield the candidates of the `chosen` (U,) boxes from whole rows of scores."""
        for index in range(len(images.counts)):
            priors = images.of_image(index)
            if isinstance(priors, PriorGrid):
                fields, groups = stage.grid(priors).boxes, priors.shape_group
            else:
                fields = priors if stage.scale is None else _scale_boxes(priors, stage.scale)
                groups = torch.zeros(len(priors), dtype=torch.int64, device=priors.device)
            boxes = chosen[images.image[chosen] == index]
            for candidates in dense_candidates(
                stage, self.distance, images.boxes[boxes], fields, groups, images.valid(index)
            ):
                yield candidates.of_boxes(boxes)


def _listed_on(device: torch.device) -> bool:
    """Whether candidates are picked out; a GPU keeps all: it would be waited for to count them."""
    return device.type == "cpu"


def _raise_priority(
    priority: Tensor, candidates: Candidates, box_priority: Tensor, first_prior: Tensor
) -> Tensor:
    """Let candidates compete for their priors.

    Args:
        priority: (B * P,) int32, changed in place.
        candidates: Of any boxes.
        box_priority: (2, N) int32 priority of a positive of each box in each stage.
        first_prior: (N,) where the priors of each box's image begin in `priority`.

    Returns:
        (M,) int64 the positions in `priority` that may have changed.
    """
    own = box_priority[candidates.stage, candidates.box]
    value = torch.where(candidates.is_positive, own, candidates.is_ignored.to(torch.int32)).view(-1)
    where = (first_prior[candidates.box] + candidates.prior).view(-1)
    priority.scatter_reduce_(0, where, value, "amax")
    return where


def _scale_boxes(boxes: Tensor, factor: float) -> Tensor:
    """(P, 4) plain boxes scaled about their centres."""
    edges = scale_edges(torch.stack((boxes[:, :2], boxes[:, 2:])), factor)
    return torch.cat(tuple(edges), dim=1)


def _is_positive(number: Any) -> bool:
    """Whether this is a finite number above 0."""
    try:
        return 0 < float(number) < math.inf
    except (TypeError, ValueError, OverflowError):
        return False


def _are_counts(topk: Any) -> bool:
    """Whether these are two whole numbers from 1."""
    try:
        return len(topk) == 2 and all(count == int(count) >= 1 for count in topk)
    except (TypeError, ValueError, OverflowError):
        return False


def _drop_outside(matched: Tensor, images: Images) -> Tensor:
    """Turn (B, P) positives whose centre is not strictly inside their box into background.

    An ignored prior has no box; as in the authors' code it stays ignored only inside the first one.
    """
    kept = []
    for index, boxes in enumerate(torch.split(images.boxes, list(images.counts))):
        priors, row = images.of_image(index), matched[index]
        if isinstance(priors, PriorGrid):
            center = priors.centers
        else:
            center = (priors[:, :2] + priors[:, 2:]) / 2
        if len(boxes):
            box = boxes[row.clamp(min=0)]  # (P, 4)
            outside = ((center <= box[:, :2]) | (center >= box[:, 2:])).any(dim=1)
            row = row.masked_fill((row != BACKGROUND) & outside, BACKGROUND)
        kept.append(row)
    return torch.stack(kept)
