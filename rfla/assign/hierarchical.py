"""Hierarchical label assigner (HLA) of RFLA: each box takes its nearest priors, then more of fields that have shrunk.

Shapes: B images, G boxes of one image, N boxes of all images, P priors of an image, M claims. Boxes
are xyxy in px of the network input. Everything is float32 and nothing is recorded for gradients.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rfla.assign.claims import list_claims, scatter_claims
from rfla.assign.dense import Claims, chunks, dense_claims
from rfla.assign.distance import Distance, get_distance
from rfla.assign.explain import AssignmentReport, report
from rfla.assign.images import Images, pack
from rfla.assign.priors import PriorGrid, scale_ends
from rfla.assign.regions import BACKGROUND, IGNORED, covered_by, prior_boxes
from rfla.assign.windows import score_windows, window_cells, window_radius
from rfla.errors import ConfigError, did_you_mean

CONFLICTS = ("last", "smallest")
CACHE_BUDGET = 2 * 2**20
"""Bytes of one score tensor on the CPU: small enough to stay in its cache."""
DEVICE_BUDGET = 6 * 2**20
"""Bytes of one score tensor elsewhere, at least: large enough for few launches. All tensors of a chunk take 8 times
that, which for 2,000 boxes is under 64 MiB."""
DEVICE_BUDGET_OF_A_BOX = 3200
"""The same for each box: many boxes get more memory, and no more launches."""
PASS = 2**16
"""Candidates that cost as much as a second pass: up to so many more, both stages use the larger window."""
WORTHWHILE = 0.5
"""A window pays as long as its cells are less than this share of all priors."""


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
    """

    def __init__(
        self,
        distance: str | Distance = "kld",
        topk: Sequence[int] = (3, 1),
        decay: float = 0.9,
        centers_inside: bool = False,
        ignore_above: float | None = 0.8,
        conflict: str = "last",
    ) -> None:
        if conflict not in CONFLICTS:
            hint = did_you_mean(conflict, CONFLICTS)
            raise ConfigError(
                f"assigner.conflict: '{conflict}' is not one of {', '.join(CONFLICTS)}{hint}"
            )
        if len(topk) != 2 or min(topk) < 1:
            raise ConfigError(
                f"assigner.topk: two whole numbers from 1, one for each stage, not {list(topk)}"
            )
        if decay <= 0:
            raise ConfigError(f"assigner.decay: a number above 0, not {decay}")
        self.distance = get_distance(distance)
        self.topk = (int(topk[0]), int(topk[1]))
        self.decay = float(decay)
        self.centers_inside = centers_inside
        self.ignore_above = ignore_above
        self.conflict = conflict

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
        matched = self._match(images)
        if self.centers_inside and len(images.boxes):
            matched = _drop_outside(matched, images)
        if ignore_boxes is None and not images.restricted:
            return matched
        for index, row in enumerate(matched):
            regions = None if ignore_boxes is None else ignore_boxes[index]
            if regions is not None and len(regions):
                row.masked_fill_(
                    (row == BACKGROUND) & covered_by(images.of_image(index), regions), IGNORED
                )
            valid = images.valid(index)
            if valid is not None:
                row.masked_fill_(~valid, IGNORED)
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
        """Say how the boxes of one image fare.

        `AssignmentReport.merge` joins the reports of a data set.
        """
        matched = self(grid, gt_boxes, ignore_boxes, image_size, allowed_border)
        images = pack(
            grid, [gt_boxes], None if image_size is None else [image_size], allowed_border
        )
        return report(
            grid, images.boxes, matched, list(self._claims(images)) if len(images.boxes) else []
        )

    def _match(self, images: Images) -> Tensor:
        """(B, P) int64 before regions and validity.

        One integer for each prior orders everything that can happen to it: 0 background, 1 ignored,
        then the second stage by rank of the box, then the first stage by rank. The largest wins, so
        the order of the writes does not matter.
        """
        total, num_priors, device = len(images.boxes), images.num_priors, images.boxes.device
        codes = torch.zeros(len(images.counts) * num_priors, dtype=torch.int32, device=device)
        if total == 0:
            return torch.full_like(codes, BACKGROUND, dtype=torch.int64).view(-1, num_priors)
        order = self._order(images.boxes)
        rank = (order if self.conflict == "last" else order.argsort()).to(torch.int32)
        touched: list[Tensor] = []
        ranks, starts = torch.stack((rank + (2 + total), rank + 2)), images.image * num_priors
        for claims in self._claims(images):
            where = _write(codes, claims, ranks, starts)
            if device.type == "cpu":  # elsewhere claims are not a short list
                touched.append(where)
            del claims, where  # before the next chunk asks for as much memory again
        free, boxes = torch.arange(BACKGROUND, IGNORED - 1, -1, device=device), images.local[order]
        meaning = torch.cat((free, boxes, boxes))
        if not touched:
            return meaning.index_select(0, codes).view(-1, num_priors)
        matched, where = torch.full_like(codes, BACKGROUND, dtype=torch.int64), torch.cat(touched)
        # most priors are background: write the others alone
        matched[where] = meaning.index_select(0, codes.index_select(0, where))
        return matched.view(-1, num_priors)

    def _order(self, boxes: Tensor) -> Tensor:
        """(N,) int64: the boxes from the first to yield in a conflict to the last."""
        if self.conflict == "last":
            return torch.arange(len(boxes), device=boxes.device)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return area.sort(descending=True, stable=True).indices

    def _claims(self, images: Images) -> Iterator[Claims]:
        """The claims of both stages by the cheapest exact way."""
        grid, total, dense = images.priors, len(images.boxes), [0, 1]
        if isinstance(grid, PriorGrid):
            windowed = self._radii(grid)
            radius = max(windowed.values(), default=0)
            extra = sum(
                window_cells(grid, radius) - window_cells(grid, own) for own in windowed.values()
            )
            if extra * total <= PASS:
                windowed = dict.fromkeys(windowed, radius)
            for radius in sorted(set(windowed.values())):
                yield from self._windowed(
                    images, grid, [at for at, own in windowed.items() if own == radius], radius
                )
            dense = [stage for stage in dense if stage not in windowed]
        for stage in dense:
            yield from self._dense(
                images, stage, torch.arange(total, device=images.boxes.device), self._above(stage)
            )

    def _radii(self, grid: PriorGrid) -> dict[int, int]:
        """The radius of the window of each stage for which windows pay."""
        radii = {}
        for stage in (0, 1):
            radius = window_radius(
                self._fields(grid, stage), self.distance, self.topk[stage], self._above(stage)
            )
            if window_cells(grid, radius) < WORTHWHILE * len(grid):
                radii[stage] = int(radius)
        return radii

    def _fields(self, grid: PriorGrid, stage: int) -> PriorGrid:
        return grid.scaled(self.decay) if stage else grid

    def _above(self, stage: int) -> float | None:
        return self.ignore_above if stage else None

    def _windowed(
        self, images: Images, grid: PriorGrid, stages: list[int], radius: int
    ) -> Iterator[Claims]:
        """The claims of the stages that have windows of this radius."""
        topk, above = (
            [self.topk[stage] for stage in stages],
            [self._above(stage) for stage in stages],
        )
        fields = [self._fields(grid, stage) for stage in stages]
        on_cpu, limits = images.boxes.device.type == "cpu", images.limits(grid)
        row_bytes, total = int(window_cells(grid, radius)) * 4 * len(stages), len(images.boxes)
        budget = CACHE_BUDGET if on_cpu else max(DEVICE_BUDGET, DEVICE_BUDGET_OF_A_BOX * total)
        memory = (
            images.boxes.new_empty(max(row_bytes, min(budget, row_bytes * total)) // 4)
            if on_cpu
            else None
        )
        for part in chunks(total, row_bytes, budget):
            valid = limits.take(images.image[part])
            windows = score_windows(
                fields, self.distance, images.boxes[part], radius, valid, memory
            )
            if not on_cpu:
                for at in range(len(stages)):
                    yield scatter_claims(windows, at, topk[at], above[at]).moved(
                        stages[0], part.start
                    )
                continue
            claims, unsure = list_claims(windows, topk, above)
            yield claims.moved(stages[0], part.start)
            for stage, boxes in zip(stages, unsure, strict=False):
                yield from self._dense(images, stage, boxes + part.start, None)

    def _dense(
        self, images: Images, stage: int, chosen: Tensor, above: float | None
    ) -> Iterator[Claims]:
        """The claims of the `chosen` (U,) boxes from whole rows of scores."""
        for index in range(len(images.counts)):
            mine = chosen[images.image[chosen] == index]
            priors = images.of_image(index)
            fields = _shrunk(priors, self.decay) if stage else prior_boxes(priors)
            groups = (
                priors.shape_group
                if isinstance(priors, PriorGrid)
                else torch.zeros_like(fields[:, 0]).long()
            )
            boxes, k, valid = images.boxes[mine], self.topk[stage], images.valid(index)
            for claims in dense_claims(
                stage, self.distance, boxes, fields, groups, valid, k, above
            ):
                yield claims.of(mine)


def _write(codes: Tensor, claims: Claims, rank: Tensor, start: Tensor) -> Tensor:
    """Let claims compete for their priors.

    Args:
        codes: (B * P,) int32, changed in place.
        claims: Of any boxes.
        rank: (2, N) int32 what a claim of each box writes in each stage.
        start: (N,) where the priors of each box's image begin in `codes`.

    Returns:
        (M,) int64 the places in `codes` that may have changed.
    """
    code = torch.where(
        claims.claimed, rank[claims.stage, claims.box], claims.band.to(torch.int32)
    ).view(-1)
    where = (start[claims.box] + claims.prior).view(-1)
    codes.scatter_reduce_(0, where, code, "amax")
    return where


def _shrunk(priors: PriorGrid | Tensor, decay: float) -> Tensor:
    """(P, 4) fields of the second stage."""
    if isinstance(priors, PriorGrid):
        return priors.scaled(decay).boxes
    return torch.cat(tuple(scale_ends(torch.stack((priors[:, :2], priors[:, 2:])), decay)), dim=1)


def _drop_outside(matched: Tensor, images: Images) -> Tensor:
    """Turn (B, P) positives whose centre is not strictly inside their box into background.

    An ignored prior has no box; as in the authors' code it stays ignored only inside the first one.
    """
    kept = []
    for index, boxes in enumerate(torch.split(images.boxes, list(images.counts))):
        priors, row = images.of_image(index), matched[index]
        centre = (
            priors.centers if isinstance(priors, PriorGrid) else (priors[:, :2] + priors[:, 2:]) / 2
        )
        if len(boxes):
            box = boxes[row.clamp(min=0)]  # (P, 4)
            outside = ((centre <= box[:, :2]) | (centre >= box[:, 2:])).any(dim=1)
            row = row.masked_fill((row != BACKGROUND) & outside, BACKGROUND)
        kept.append(row)
    return torch.stack(kept)
