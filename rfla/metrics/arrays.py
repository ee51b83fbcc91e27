"""What the evaluation works on: boxes of many images in flat arrays.

Shapes: N images, G ground-truth boxes of all images together, D detections of all images together.
Boxes are xyxy in px of the original image, float64. Labels are 0-based positions in `names`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfla.errors import MetricError, one_line

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

REGION = -1
"""Label of a box that marks a region of the image to be ignored for every class."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The true boxes of all images.

    Args:
        image_ids: (N,) ids of the images, integers or strings, each once.
        image_index: (G,) position in `image_ids` of the image of each box.
        boxes: (G, 4) xyxy px.
        labels: (G,) positions in `names`, or `REGION` for a region that is ignored for every class.
        area: (G,) area in px², which decides the size range; None: width times height.
        ignore: (G,) boxes that the protocols visdrone, soda and tinyperson neither ask for nor
            punish; None: none. As the official evaluators, the protocols coco and aitod do not
            look at it.
        crowd: (G,) boxes round a crowd (COCO `iscrowd`), which may be matched many times and count
            nothing; None: none.
        names: class names in label order.
        category_ids: COCO category id of each name; (): 1, 2, 3, ...
        sides: (G, 2) width and height px exactly as a file gave them (x1 + w - x1 is not always w);
            None: from `boxes`.
        files: image file name of each image, for the gallery; (): unknown.
    """

    image_ids: tuple[int | str, ...]
    image_index: IntArray
    boxes: FloatArray
    labels: IntArray
    area: FloatArray | None = None
    ignore: BoolArray | None = None
    crowd: BoolArray | None = None
    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    sides: FloatArray | None = None
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        boxes, sides = _boxes_and_sides(self.boxes, self.sides, "ground truth")
        count = len(boxes)
        area = sides[:, 0] * sides[:, 1] if self.area is None else np.asarray(self.area, np.float64)
        ids = tuple(
            i.item() if isinstance(i, np.generic) else i for i in self.image_ids
        )  # plain, for JSON
        names = tuple(self.names)
        _set(self, image_ids=ids, boxes=boxes, sides=sides, names=names)
        _set(
            self,
            area=_sized(area, count, "area"),
            image_index=_integers(self.image_index, count, "image_index"),
        )
        _set(self, labels=_integers(self.labels, count, "labels"))
        _set(self, ignore=_flags(self.ignore, count), crowd=_flags(self.crowd, count))
        _set(self, category_ids=tuple(self.category_ids) or tuple(range(1, len(names) + 1)))
        if len(set(ids)) < len(ids):
            raise MetricError("ground truth: an image id is given twice")
        bad = np.flatnonzero(~np.isfinite(_sized(area, count, "area")))
        if len(bad):
            raise MetricError(f"ground truth: the area of {_which(bad)} is not finite")
        _check_range(self.image_index, 0, len(ids), "ground truth: image_index")
        _check_range(self.labels, REGION, len(names), "ground truth: label")
        if len(self.category_ids) != len(names):
            raise MetricError(
                f"ground truth: {len(self.category_ids)} category ids for {len(names)} names"
            )

    @cached_property
    def image_rank(self) -> IntArray:
        """(N,) rank of each image by its id, which decides between equal scores in pycocotools."""
        return ranks(self.image_ids)

    @cached_property
    def class_rank(self) -> IntArray:
        """(C,) place of each class in the order of its category id."""
        return ranks(self.category_ids)


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of all images, in any order.

    Args:
        image_index: (D,) position in `GroundTruth.image_ids`.
        boxes: (D, 4) xyxy px.
        scores: (D,) finite, higher is more confident.
        labels: (D,) positions in `GroundTruth.names`.
        sides: (D, 2) width and height px exactly as a file gave them; None: from `boxes`.
    """

    image_index: IntArray
    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    sides: FloatArray | None = None

    def __post_init__(self) -> None:
        boxes, sides = _boxes_and_sides(self.boxes, self.sides, "detections")
        count = len(boxes)
        scores = np.asarray(self.scores, np.float64).reshape(-1)
        _set(self, boxes=boxes, sides=sides, scores=_sized(scores, count, "scores"))
        _set(self, image_index=_integers(self.image_index, count, "image_index"))
        _set(self, labels=_integers(self.labels, count, "labels"))
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            value = "NaN" if np.isnan(scores[bad[0]]) else "infinite"
            raise MetricError(
                f"detections: the score of {_which(bad)} is {value}; every detection needs a score"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def check_against(self, gt: GroundTruth) -> None:
        """Raise MetricError when an image or a label is unknown to the ground truth."""
        _check_range(self.image_index, 0, len(gt.image_ids), "detections: image_index")
        _check_range(self.labels, 0, len(gt.names), "detections: label")


def ranks(ids: tuple[int | str, ...] | tuple[int, ...]) -> IntArray:
    """Return (N,) the place of each id among the sorted ids.

    Mixed integers and strings sort as strings.
    """
    keys = list(ids) if len({type(i) for i in ids}) == 1 else [str(i) for i in ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    places = np.empty(len(keys), np.int64)
    places[order] = np.arange(len(keys))
    return places


def stable_order(keys: IntArray) -> IntArray:
    """Return (M,) the stable order of integers of at least 0.

    Sorting of 16 bits (by radix) and plain sorting of integers (vectorised) are several times
    faster in numpy than a stable argsort of other integers. For the second, key and position are
    packed into one integer.
    """
    if keys.max(initial=0) < 1 << 16:
        return np.argsort(keys.astype(np.uint16), kind="stable")
    bits = max(len(keys), 1).bit_length()
    packed = np.sort((keys << bits) | np.arange(len(keys)))
    return packed & ((1 << bits) - 1)


def _boxes_and_sides(
    boxes: ArrayLike, sides: ArrayLike | None, what: str
) -> tuple[FloatArray, FloatArray]:
    """Return (M, 4) boxes and (M, 2) sides in float64, checked to be finite and not inside out."""
    try:
        checked = np.ascontiguousarray(boxes, np.float64).reshape(-1, 4)
        given = np.ascontiguousarray(
            checked[:, 2:] - checked[:, :2] if sides is None else sides, np.float64
        ).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise MetricError(f"{what}: boxes are no (M, 4) numbers ({one_line(error)})") from None
    finite, positive = np.isfinite(checked), given >= 0
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise MetricError(f"{what}: the box of {_which(bad)} is not finite")
    if not positive.all():
        bad = np.flatnonzero(~positive.all(axis=1))
        raise MetricError(
            f"{what}: the box of {_which(bad)} has a negative width or height; "
            "boxes are x1, y1, x2, y2"
        )
    return checked, _sized(given, len(checked), "sides", ndim=2)


def _which(rows: NDArray[np.intp]) -> str:
    """Name the first bad row and say how many there are."""
    return f"number {rows[0]}" + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else "")


def _check_range(values: IntArray, low: int, high: int, what: str) -> None:
    bad = np.flatnonzero((values < low) | (values >= high))
    if len(bad):
        raise MetricError(f"{what} {values[bad[0]]} of {_which(bad)} is outside {low}..{high - 1}")


def _sized(values: ArrayLike, count: int, what: str, ndim: int = 1) -> NDArray[Any]:
    """Return the values as an array, after checking its length and its number of dimensions."""
    array = np.asarray(values)
    if array.ndim != ndim:
        raise MetricError(f"{what}: one value for each box expected, not {array.shape}")
    if len(array) != count:
        raise MetricError(f"{what}: {len(array)} values for {count} boxes")
    return array


def _integers(values: ArrayLike, count: int, what: str) -> IntArray:
    array = _sized(values, count, what)
    if array.size and array.dtype.kind not in "iu":
        raise MetricError(f"{what}: {array.dtype} values; integers are needed")
    return array.astype(np.int64, copy=False)


def _flags(values: ArrayLike | None, count: int) -> BoolArray:
    return _sized(
        np.zeros(count, np.bool_) if values is None else np.asarray(values, np.bool_),
        count,
        "flags",
    )


def _set(target: object, **values: object) -> None:
    """Fill fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(target, name, value)
