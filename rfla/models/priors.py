"""Points and anchors: the grid of priors on a pyramid, and which box an assigner gives each.

Shapes: B images, L levels, P priors over all levels, G boxes of one image, K candidates. Boxes are
xyxy px.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid, level_receptive_fields, resnet_receptive_fields
from rfla.cfg.keys import show
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.fields import TraceError, trace_fields
from rfla.models.assigners import Assigner, anchors_baseline, build_assigner
from rfla.models.backbones.backbone import Backbone
from rfla.models.detector import ImageSizes, Target, feature_sizes
from rfla.sizes import padded_side

ATSS_ANCHOR = 8  # strides: side of the square that ATSS ranks (arXiv 1912.02424, section 4)
AUTHORS_DEPTH = 50  # of the ResNet whose receptive fields the authors count for every backbone
GRIDS_KEPT = 8


class Priors(nn.Module, ABC):
    """The priors of a pyramid and their assignment to boxes.

    `Points` and `Anchors` say which priors.

    Args:
        assigner: matches priors to boxes; None where the detector has a rule of its own.
        strides: px between neighbouring cells, for each level.
        sides: side (px) of each level before `fraction`: its receptive field, or another size.
        fraction: factor on the sides.
    """

    def __init__(
        self,
        assigner: Assigner | None,
        strides: Sequence[int],
        sides: Sequence[float],
        fraction: float,
    ) -> None:
        super().__init__()
        self.assigner, self.strides = assigner, tuple(strides)
        self.sides, self.fraction = tuple(sides), fraction
        self._grids: OrderedDict[tuple[object, ...], PriorGrid] = OrderedDict()

    def use_sides(self, sides: Sequence[float]) -> None:
        """Go on with other receptive fields (px, one for each level)."""
        if len(sides) != len(self.strides):
            raise ValueError(f"{len(sides)} sides for {len(self.strides)} levels")
        self.sides = tuple(sides)
        self._grids.clear()

    @abstractmethod
    def make(self, sizes: Sequence[tuple[int, int]]) -> PriorGrid:
        """Lay out the priors of levels of these (height, width) in cells."""

    def grid(self, levels: Sequence[Tensor]) -> PriorGrid:
        """Return the priors of these feature maps, on their device; those last used are kept."""
        key = (feature_sizes(levels), levels[0].device)
        if key not in self._grids:
            with torch.inference_mode(False):  # validation may come first, training needs it too
                self._grids[key] = self.make(key[0]).to(levels[0].device)
            if len(self._grids) > GRIDS_KEPT:
                self._grids.popitem(last=False)
        self._grids.move_to_end(key)
        return self._grids[key]

    def within(self, image_sizes: ImageSizes | None) -> tuple[ImageSizes | None, float | None]:
        """Return the (height, width) that priors must lie in, and how far they may reach out.

        None: unrestricted.
        """
        return None, None

    @torch.no_grad()
    def assign(
        self,
        levels: Sequence[Tensor],
        targets: Sequence[Target],
        image_sizes: ImageSizes | None = None,
    ) -> Tensor:
        """Assign the priors of all images in one call.

        Args:
            levels: Maps (B, _, H, W) of each level; only their sizes are used.
            targets: B truths.
            image_sizes: (height, width) of each image before padding; anchors heed it.

        Returns:
            (B, P) int64: index of the box, -1 background, -2 ignored (also beyond the image and its
            border).
        """
        if self.assigner is None:
            raise ValueError("this detector has no assigner")
        boxes = [target["boxes"] for target in targets]
        ignore = [target.get("ignore") for target in targets]
        return self.assigner.batch(self.grid(levels), boxes, ignore, *self.within(image_sizes))


class Points(Priors):
    """One point in each cell, with the field that it sees; cells of the padding count as any other.

    Args:
        assigner: see `Priors`.
        strides: see `Priors`.
        sides: side (px) of the field of each level before `fraction`.
        fraction: factor on the sides.
        offset: `half` puts a point in the middle of its cell, `corner` in the upper left corner.
    """

    def __init__(
        self,
        assigner: Assigner | None,
        strides: Sequence[int],
        sides: Sequence[float],
        *,
        fraction: float = 0.5,
        offset: Literal["half", "corner"] = "half",
    ) -> None:
        super().__init__(assigner, strides, sides, fraction)
        self.offset: Literal["half", "corner"] = offset

    def make(self, sizes: Sequence[tuple[int, int]]) -> PriorGrid:
        """Lay out the points of levels of these (height, width) in cells."""
        return PriorGrid.points(sizes, self.strides, self.sides, self.fraction, self.offset)

    def stride_of_each(self, levels: Sequence[Tensor]) -> Tensor:
        """(P, 1) float32 px."""
        return self._of_each(levels, self.strides)

    def field_of_each(self, levels: Sequence[Tensor]) -> Tensor:
        """(P, 1) float32 side of the effective receptive field, px."""
        return self._of_each(levels, [side * self.fraction for side in self.sides])

    def _of_each(self, levels: Sequence[Tensor], values: Sequence[float]) -> Tensor:
        """(P, 1) float32: the value of its level for each point."""
        grid = self.grid(levels)
        counts = zip(grid.level_counts, values, strict=True)
        full = partial(torch.full, dtype=torch.float32, device=grid.device)
        return torch.cat([full((count, 1), float(value)) for count, value in counts])


class Anchors(Priors):
    """Boxes of several shapes in each cell.

    Args:
        assigner: see `Priors`.
        strides: see `Priors`.
        sides: side (px) of the square anchor of each level before `fraction`: receptive fields, or
            scaled strides.
        fraction: factor on the sides.
        ratios: shapes, height / width.
        scales: further factors on the sides.
        allowed_border: px that an anchor may reach outside its image to be assigned; None is any.
    """

    def __init__(
        self,
        assigner: Assigner | None,
        strides: Sequence[int],
        sides: Sequence[float],
        *,
        fraction: float = 0.5,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: Sequence[float] = (1.0,),
        allowed_border: float | None = None,
    ) -> None:
        super().__init__(assigner, strides, sides, fraction)
        self.allowed_border = allowed_border
        self.ratios, self.scales = tuple(ratios), tuple(scales)
        self.per_cell = len(self.ratios) * len(self.scales)

    def make(self, sizes: Sequence[tuple[int, int]]) -> PriorGrid:
        """Lay out the anchors of levels of these (height, width) in cells."""
        return PriorGrid.anchors(
            sizes, self.strides, self.sides, self.fraction, self.ratios, self.scales
        )

    def within(self, image_sizes: ImageSizes | None) -> tuple[ImageSizes | None, float | None]:
        """Return the image sizes; without a border, with the padding, which is background."""
        if self.allowed_border is not None or image_sizes is None:
            return image_sizes, self.allowed_border
        return [(padded_side(height), padded_side(width)) for height, width in image_sizes], None


def build_points(
    config: ModelConfig,
    backbone: Backbone,
    strides: Sequence[int],
    assigner: Assigner | None,
    offset: Literal["half", "corner"] = "half",
) -> Points:
    """The points of all levels with their receptive fields.

    Args:
        config: of the model.
        backbone: whose receptive fields the points have.
        strides: px between the cells of each level.
        assigner: see `Priors`.
        offset: see `Points`.
    """
    sides = receptive_fields(config, backbone)
    fraction = config.assigner.fraction
    if config.assigner.name == "atss":
        sides, fraction = [ATSS_ANCHOR * float(stride) for stride in strides], 1.0
    return Points(
        assigner,
        strides,
        sides,
        fraction=fraction,
        offset=offset,
    )


def build_anchors(config: ModelConfig, backbone: Backbone, strides: Sequence[int]) -> Anchors:
    """Receptive fields in several ratios with `assigner=rfla`, otherwise the baseline's anchors."""
    section, border = config.anchors, config.assigner.allowed_border
    sides: list[float]
    if config.assigner.name == "rfla":
        sides, fraction = receptive_fields(config, backbone), config.assigner.fraction
        scales = [1.0]
    else:
        sides, fraction = [section.scale * stride for stride in strides], 1.0
        scales = [2 ** (step / section.octave_scales) for step in range(section.octave_scales)]
    return Anchors(
        build_assigner(config.assigner, baseline=anchors_baseline(section)),
        strides,
        sides,
        fraction=fraction,
        ratios=section.ratios,
        scales=scales,
        allowed_border=None if border < 0 else border,
    )


def receptive_fields(config: ModelConfig, backbone: Backbone) -> list[float]:
    """Full side (px) of the receptive field of each pyramid level, finest first.

    `assigner.fields=measured` needs weights and images: until then the levels have the authors'
    (see `rfla.models.detector_fields`).

    Raises:
        ConfigError: a number of sides that is not that of the levels, or a backbone without
            theoretical fields.
    """
    first, fields = config.neck.start_level, config.assigner.fields
    levels = range(first, first + config.neck.levels)
    if isinstance(fields, tuple):
        if len(fields) != len(levels):
            raise ConfigError(
                f"assigner.fields={show(fields)}: one side for each of the {len(levels)} levels "
                f"(P{levels[0]} to P{levels[-1]}) is needed, not {len(fields)}"
            )
        return list(fields)
    if fields == "traced":
        return level_receptive_fields(_traced_sides(backbone), levels)
    return [float(side) for side in resnet_receptive_fields(AUTHORS_DEPTH, levels)]


def _traced_sides(backbone: Backbone) -> dict[int, float]:
    """Level of each map of a backbone, and the side (px) of its theoretical field."""
    try:
        found = trace_fields(backbone)
    except TraceError as error:
        raise ConfigError(
            f"assigner.fields=traced: {backbone.name} cannot be traced ({error}); "
            "take assigner.fields=measured"
        ) from None
    unbounded = next((field.unbounded for field in found if field.unbounded), "")
    if unbounded:
        raise ConfigError(
            f"assigner.fields=traced: the theoretical fields of {backbone.name} are unbounded "
            f"({unbounded}); take assigner.fields=measured"
        )
    levels = [stride.bit_length() - 1 for stride in backbone.strides]
    return {level: field.side for level, field in zip(levels, found, strict=True)}


def best_candidates(scores: Tensor, counts: Sequence[int], limit: int) -> list[Tensor]:
    """Pick the best priors of each level.

    Args:
        scores: (B, P), level by level.
        counts: Priors of each level, summing to P.
        limit: How many to keep of each level.

    Returns:
        For each level (B, K) int64 indices into P, best first; a level with at most `limit` priors
        keeps its order.
    """
    picked = []
    first = 0
    for count in counts:
        level = scores[:, first : first + count]
        if isinstance(count, Tensor):  # a graph of free size is traced, and decides when it runs
            order = level.topk(torch.clamp(count, max=limit), dim=1).indices
        elif isinstance(count, torch.SymInt):  # the same, in a graph of torch.export
            order = level.topk(torch.sym_min(count, limit), dim=1).indices
        elif count > limit:
            # Equal scores, common near 1, come in topk's order, which is that of the authors'
            # proposals too.
            order = level.topk(limit, dim=1).indices
        else:
            order = torch.arange(count, device=level.device).expand(len(level), -1)
        picked.append(order + first)
        first += count
    return picked


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, K) of `values` (B, P, D): (B, K, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
