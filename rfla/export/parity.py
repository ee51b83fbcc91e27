"""An exported network against the one it came from: the same detections, or it is refused.

Shapes: N detections of an image, (H, W) px. Boxes are xyxy px of the input.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from rfla.cfg.model_schema import NormalizeConfig
from rfla.data.resize import resize_long_side
from rfla.data.stacking import stack_images
from rfla.engine.inference import prepare_images
from rfla.errors import ConfigError, counted
from rfla.export.exported_net import ExportedNet
from rfla.models.detector import Detector
from rfla.ops.boxes import reach_into
from rfla.ops.nms import ImageDetections


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same detection, and how many must be.

    Attributes:
        iou: least IoU of two boxes of a class.
        score: largest difference of their scores.
        share: least share of the detections of either that the other has too.
        margin: a detection may be missing whose score is so close to the least one that is kept.
        lowest: score from which a detection must be found again. Among weak ones that overlap,
            half precision decides otherwise which of them suppresses which.
        side: px that the sides of two boxes may differ by where one has no area, and so no IoU.
    """

    iou: float
    score: float
    share: float
    margin: float
    lowest: float = 0.0
    side: float = 1e-3


FLOAT32 = Tolerance(iou=0.999, score=1e-4, share=0.999, margin=1e-4)
FLOAT16 = Tolerance(iou=0.5, score=0.05, share=0.95, margin=0.02, lowest=0.25, side=1.0)


@dataclass
class Parity:
    """What comparing images has shown so far.

    Attributes:
        images: how many were compared.
        detections: of the original.
        matched: detections of the original that the export has too, and the other way round.
        expected: how many of those there could have been.
        worst_box: largest difference of a side of matched boxes, px.
        worst_score: largest difference of their scores.
        missed: (M, 2) of each detection that the other has not: side (root of its area, px), score.
    """

    images: int = 0
    detections: int = 0
    matched: int = 0
    expected: int = 0
    worst_box: float = 0.0
    worst_score: float = 0.0
    missed: Tensor = field(default_factory=lambda: torch.zeros(0, 2))

    def add(
        self, original: ImageDetections, exported: ImageDetections, limit: int, rules: Tolerance
    ) -> None:
        """Compare the detections of one image.

        Where an image has as many detections as are kept, those at the end may differ by rounding.
        """
        self.images += 1
        self.detections += len(original["scores"])
        pairs = _pairs(original, exported, rules)
        for one, partners in ((original, pairs.any(dim=1)), (exported, pairs.any(dim=0))):
            scores = one["scores"]
            sure = scores >= rules.lowest
            if len(scores) >= limit:
                sure &= scores > scores.min() + rules.margin
            self.matched += int((partners & sure).sum())
            self.expected += int(sure.sum())
            alone = sure & ~partners
            seen = torch.stack([box_area(one["boxes"][alone]).sqrt(), scores[alone]], dim=1)
            self.missed = torch.cat([self.missed, seen])
        found = pairs.any(dim=1).nonzero().squeeze(1)
        if len(found):
            # of several boxes at one place, the one with the nearest score
            gaps = (original["scores"][found, None] - exported["scores"]).abs()
            gaps, partner = gaps.masked_fill(~pairs[found], torch.inf).min(dim=1)
            boxes = (original["boxes"][found] - exported["boxes"][partner]).abs().amax(dim=1)
            self.worst_box = max(self.worst_box, float(boxes.max()))
            self.worst_score = max(self.worst_score, float(gaps.max()))

    @property
    def share(self) -> float:
        """Share of the detections that both have; 1 where there are none."""
        return self.matched / self.expected if self.expected else 1.0

    def line(self) -> str:
        """Say it to the user."""
        if not self.detections:
            return (
                f"parity with torch: nothing was found in {self.images} images, so nothing could "
                "differ; data= names images with objects, which say more"
            )
        return (
            f"parity with torch: {counted(self.images, 'image')}, "
            f"{counted(self.detections, 'detection')}, "
            f"{self.share:.2%} matched, boxes within {self.worst_box:.2g} px, "
            f"scores within {self.worst_score:.2g}"
        )

    def require(self, rules: Tolerance, where: str, instead: str) -> None:
        """Refuse an export that finds something else.

        Args:
            rules: what counts as the same.
            where: names the export.
            instead: what to type.

        Raises:
            ConfigError: with the figures.
        """
        if self.share < rules.share:
            (least_side, least_score), (side, score) = self.missed.aminmax(dim=0)
            raise ConfigError(
                f"{where}: the export does not find what the network finds, nothing is written; "
                f"{self.line()}, where {rules.share:.1%} at IoU {rules.iou} are needed; what only "
                f"one of them finds is {least_side:.0f} to {side:.0f} px large, of scores "
                f"{least_score:.2f} to {score:.2f}; {instead}"
            )


def compare(
    net: Detector,
    normalize: NormalizeConfig,
    exported: ExportedNet,
    batches: Iterable[Sequence[np.ndarray]],
    rules: Tolerance,
) -> Parity:
    """Run both on the same images.

    Args:
        net: the original, in evaluation mode, keeping what the export keeps.
        normalize: how pixels become its input.
        exported: the export.
        batches: of images (H, W, 3) uint8 RGB, at the size that the network sees.
        rules: what counts as the same.
    """
    parity = Parity()
    for batch in batches:
        images, sizes = stack_images(batch, exported.runner.least_side)
        with torch.no_grad():
            original = net(prepare_images(images, sizes, normalize), image_sizes=sizes)
        found = exported(images, image_sizes=sizes)
        for one, other, size in zip(original, found, sizes, strict=True):
            sides = (_seen(one, size), _seen(other, size))
            most = max(len(one["scores"]), len(other["scores"]))
            limit = exported.limits.max_det
            if most >= limit:  # what was cut off lies behind the shorter one
                limit = max(1, *(len(side["scores"]) for side in sides))
            parity.add(*sides, limit, rules)
    return parity


def sure_of_something(
    net: Detector,
    normalize: NormalizeConfig,
    batches: Iterable[Sequence[np.ndarray]],
    lowest: float,
) -> bool:
    """Tell whether a network finds anything with a score of `lowest`; arguments as of `compare`."""
    for batch in batches:
        images, sizes = stack_images(batch)
        with torch.no_grad():
            found = net(prepare_images(images, sizes, normalize), image_sizes=sizes)
        if any(bool((one["scores"] >= lowest).any()) for one in found):
            return True
    return False


def _seen(found: ImageDetections, size: tuple[int, int]) -> ImageDetections:
    """Return what of it `Inference` does not leave out."""
    shows = reach_into(found["boxes"], *size)
    boxes, scores, labels = (found[key][shows] for key in ("boxes", "scores", "labels"))
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _pairs(one: ImageDetections, other: ImageDetections, rules: Tolerance) -> Tensor:
    """(N, N') which detections are the same."""
    same_box = box_iou(one["boxes"], other["boxes"]) >= rules.iou
    # a box without an area has no IoU, one of hardly any an IoU of rounding: like sides will do
    gap = torch.cdist(one["boxes"], other["boxes"], p=torch.inf)
    flat = (box_area(one["boxes"]) == 0)[:, None] | (box_area(other["boxes"]) == 0)
    same_box |= (gap <= 1e-3) | (flat & (gap <= rules.side))
    same_class = one["labels"][:, None] == other["labels"]
    score_gap = (one["scores"][:, None] - other["scores"]).abs()
    pairs: Tensor = same_box & same_class & (score_gap <= rules.score)
    return pairs


def painted_images(side: int, *, fixed: bool) -> list[list[np.ndarray]]:
    """Batches of noise, and of small bright and dark rectangles on a smooth ground.

    Args:
        side: long side, px.
        fixed: the export takes images of this size alone; otherwise two sizes are painted, one of
            them odd, and the first batch holds images of two sizes.
    """
    rng = np.random.default_rng(0)
    if fixed:
        return [[_painted(side, side, rng)], [_noise(side, side, rng)]]
    half = max(97, side // 2 + 1)
    return [
        [_painted(side * 3 // 4, side, rng), _noise(side // 2, side - 7, rng)],
        [_painted(half, half - 30, rng)],
    ]


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image as the network sees it: its long side `side` px."""
    return resize_long_side(image, side)[0]


def _noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _painted(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    ramp = np.linspace(60, 160, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    image = np.repeat(ramp, 3, axis=2) + rng.normal(0, 4, (height, width, 3))
    for _ in range(height * width // 3000):
        x, y = rng.integers(0, width - 4), rng.integers(0, height - 4)
        w, h = rng.integers(3, 24, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image.clip(0, 255).astype(np.uint8)
