"""All images and boxes of a split in flat arrays: 752,754 boxes are a few numpy arrays, not 752,754 objects.

Shapes: N images, M boxes, C classes. The boxes of image `i` are rows `box_start[i]:box_start[i +
1]`. Forked workers share the arrays, nothing is copied.
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.data.images import Image, read_annotated
from rfla.data.rows import Rows
from rfla.data.spec import DataSpec
from rfla.errors import DataError

log = logging.getLogger("rfla.data")

MIN_SIDE = 1.0  # px; boxes with a side under this are no training target, as in the official parse


@dataclass(frozen=True)
class BoxIndex:
    """Images and boxes of one split (or of joined ones), in file order.

    Attributes:
        name: For messages, as `demo/train`.
        names: Class names in label order, C of them.
        category_ids: The annotation files' category id of each label.
        paths: (N,) str, absolute.
        image_ids: (N,) int64, or str where the files use text.
        image_hw: (N, 2) int32 height and width, px, as the annotations state them.
        box_start: (N + 1,) int64.
        boxes: (M, 4) float32 xyxy, px of the original image.
        labels: (M,) int64, 0-based.
        ignore: (M,) bool, regions that are neither object nor background.
        crowd: (M,) bool, one box for many objects (`iscrowd`).
        area: (M,) float64 px^2, as stated in the file, else width x height.
        counts: What was dropped or repaired, and how often.
        examples: The first place of each entry of `counts`.
        stated: (M, 4) float64 x, y, width, height px exactly as the file has them, for evaluation;
            None in training.
    """

    name: str
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    paths: NDArray[np.str_]
    image_ids: NDArray[Any]
    image_hw: NDArray[np.int32]
    box_start: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    stated: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_index(self) -> NDArray[np.int64]:
        """(M,) row of the image that each box belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.box_start))

    def rows_of(self, image: int) -> slice:
        """Rows of the boxes of one image."""
        return slice(int(self.box_start[image]), int(self.box_start[image + 1]))

    def picture(self, image: int) -> Image:
        """The picture of one image, (H, W, 3) uint8 RGB, at the size of the annotations: boxes fit as they are.

        Raises:
            DataError: As in `rfla.data.images.read_annotated`.
        """
        height, width = (int(side) for side in self.image_hw[image])
        pixels = read_annotated(str(self.paths[image]), (height, width))
        if pixels.shape[:2] == (height, width):
            return pixels
        return np.asarray(
            cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
        )

    def take(self, images: NDArray[np.int64]) -> "BoxIndex":
        """The index of some of the images, in the order given."""
        sizes = np.diff(self.box_start)[images]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(self.box_start[images] - start[:-1], sizes) + np.arange(start[-1])
        return replace(
            self,
            paths=self.paths[images],
            image_ids=self.image_ids[images],
            image_hw=self.image_hw[images],
            box_start=start,
            **self._of_boxes(rows),
        )

    def keep_boxes(self, keep: NDArray[np.bool_]) -> "BoxIndex":
        """The index with only the boxes where `keep` (M,) is true; all images stay."""
        kept = np.concatenate([[0], np.cumsum(keep)])
        return replace(
            self, box_start=kept[self.box_start].astype(np.int64), **self._of_boxes(keep)
        )

    def _of_boxes(self, chosen: NDArray[Any]) -> dict[str, Any]:
        """What is told of each box, for some boxes."""
        names = ("boxes", "labels", "ignore", "crowd", "area", "stated")
        return {
            name: None if getattr(self, name) is None else getattr(self, name)[chosen]
            for name in names
        }

    def summary(self) -> str:
        """One line: images, boxes, and each repair with its count and first place."""
        text = f"{self.name}: {len(self):,} images, {len(self.boxes):,} boxes"
        repairs = [
            f"{count:,} {what} (first: {self.examples[what]})"
            for what, count in self.counts.items()
        ]
        return text + ("; " + "; ".join(repairs) if repairs else "")


def load_index(
    spec: DataSpec,
    split: str,
    *,
    for_training: bool = False,
    fraction: float = 1.0,
    single_cls: bool = False,
    strict: bool = True,
    need_images: bool = True,
) -> BoxIndex:
    """Read one split, or joined ones, into flat arrays.

    For evaluation every box stays as it is written; only boxes that are none (not finite, negative
    sides) are dropped. For training boxes are clipped to the image, and those with a side under 1
    px or without area are dropped, as in the official parse, and repeated rows are merged.
    Everything dropped is counted and logged once.

    Args:
        spec: From `load_data_spec`.
        split: A split, `a+b`, or `trainval`.
        for_training: Apply the training rules.
        fraction: Share of the images up to 1, or how many of them above 1; always the same ones,
            drawn at random.
        single_cls: Give every box label 0, class "object".
        strict: Refuse malformed rows and unknown classes; otherwise leave them out and count them.
        need_images: Leave out images without a file; otherwise the annotations are enough, where
            sizes stand in them.

    Raises:
        DataError: Missing files, malformed rows (with file and line), unknown classes, no image at
            all.
    """
    parts = [_load_part(spec, part, strict, need_images) for part in spec.parts(split)]
    index = _assemble(spec, split, parts)
    if need_images:
        index = _drop_missing_images(spec, index)
    if fraction != 1.0:
        index = index.take(_share(len(index), fraction))
    if for_training:
        index = _training_rules(index)
    if single_cls:
        index = replace(
            index, names=("object",), category_ids=(1,), labels=np.minimum(index.labels, 0)
        )
    if index.counts and strict:
        log.warning(index.summary())
    return index


def _load_part(spec: DataSpec, part: str, strict: bool, need_images: bool) -> Rows:
    from rfla.data.coco_index import read_coco_rows
    from rfla.data.yolo_index import read_yolo_rows

    source = spec.splits[part]
    annotations = [] if source.annotations is None else [source.annotations]
    for path in [*annotations, *(source.images if need_images or not annotations else ())]:
        if not path.exists():
            raise spec.missing(path)
    if source.annotations is not None:
        return read_coco_rows(source.annotations, source.images[0], spec.names, strict=strict)
    return read_yolo_rows(
        source.images, spec.names, root=spec.root, source=spec.source, strict=strict
    )


def _assemble(spec: DataSpec, split: str, parts: Sequence[Rows]) -> BoxIndex:
    """Join the parts, sort the boxes by image, drop what is no box."""
    first = parts[0]
    for part in parts[1:]:
        if part.names != first.names:
            raise DataError(
                f"{part.source}: classes {list(part.names)} differ from {list(first.names)} in {first.source}"
            )
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for part in parts:
        counts.update(part.counts)
        for what, where in part.examples.items():
            examples.setdefault(what, where)
    rows = Rows.join(parts)
    if not rows.paths:
        raise DataError(f"{first.source}: no images in {spec.name}/{split}")
    image_ids = np.asarray(rows.image_ids)
    if len(parts) > 1 and len(np.unique(image_ids)) < len(image_ids):
        image_ids = np.arange(1, len(image_ids) + 1)
        counts["image ids renumbered because the joined splits repeat them"] = len(image_ids)
        examples["image ids renumbered because the joined splits repeat them"] = (
            f"{spec.name}/{split}"
        )
    order = np.argsort(rows.image_index, kind="stable")
    per_image = np.bincount(rows.image_index, minlength=len(rows.paths))
    index = BoxIndex(
        name=f"{spec.name}/{split}",
        names=first.names,
        category_ids=first.category_ids,
        paths=np.array(rows.paths, dtype=np.str_),
        image_ids=image_ids,
        image_hw=np.asarray(rows.image_hw, np.int32).reshape(-1, 2),
        box_start=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
        boxes=rows.boxes[order].astype(np.float32),
        labels=rows.labels[order],
        ignore=rows.ignore[order],
        crowd=rows.crowd[order],
        area=rows.area[order],
        counts=counts,
        examples=examples,
        stated=np.concatenate([rows.boxes[order, :2], rows.sides[order]], axis=1),
    )
    endless = np.asarray(~np.isfinite(index.boxes).all(axis=1))
    index = _drop(index, endless, "boxes that are not finite dropped")
    assert index.stated is not None
    return _drop(
        index, np.asarray((index.stated[:, 2:] < 0).any(axis=1)), "boxes of negative size dropped"
    )


def _drop_missing_images(spec: DataSpec, index: BoxIndex) -> BoxIndex:
    """Leave out images without a file.

    One listing for each directory instead of one stat for each image.
    """
    listings: dict[str, set[str]] = {}
    present = np.empty(len(index), bool)
    for row, path in enumerate(index.paths):
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        present[row] = name in listings[folder]
    if present.all():
        return index
    first = str(index.paths[int(np.argmin(present))])
    if not present.any():
        raise spec.missing(Path(first))
    what = "images without a file left out"
    index.counts[what] += int((~present).sum())
    index.examples.setdefault(what, first)
    return index.take(np.flatnonzero(present))


def _training_rules(index: BoxIndex) -> BoxIndex:
    limit = index.image_hw[index.image_index][:, [1, 0, 1, 0]].astype(np.float32)
    boxes = np.clip(index.boxes, 0, limit)
    moved = (boxes != index.boxes).any(axis=1)
    if moved.any():
        what = "boxes clipped to the image"
        index.counts[what] += int(moved.sum())
        index.examples.setdefault(what, _place(index, int(np.argmax(moved))))
    index = replace(index, boxes=boxes, stated=None)
    sides = boxes[:, 2:] - boxes[:, :2]
    small = (sides < MIN_SIDE).any(axis=1) | (index.area <= 0)
    index = _drop(
        index, small, f"boxes under {MIN_SIDE:g} px or without area dropped from training"
    )
    key = np.column_stack([index.image_index, index.labels, index.boxes.view(np.int32)])
    _, first = np.unique(key, axis=0, return_index=True)
    repeated = np.ones(len(index.boxes), bool)
    repeated[first] = False
    return _drop(index, repeated, "repeated boxes dropped from training")


def _drop(index: BoxIndex, drop: NDArray[np.bool_], what: str) -> BoxIndex:
    if not drop.any():
        return index
    index.counts[what] += int(drop.sum())
    index.examples.setdefault(what, _place(index, int(np.argmax(drop))))
    return index.keep_boxes(~drop)


def _place(index: BoxIndex, row: int) -> str:
    image = int(np.searchsorted(index.box_start, row, side="right")) - 1
    x1, y1, x2, y2 = (float(value) for value in index.boxes[row])
    return (
        f"{Path(str(index.paths[image])).name} at x={x1:g} y={y1:g}, {x2 - x1:g} x {y2 - y1:g} px"
    )


def _share(count: int, fraction: float) -> NDArray[np.int64]:
    if not fraction > 0:
        raise DataError(
            f"fraction={fraction:g} must be above 0: up to 1 a share of the images, above 1 how many"
        )
    wanted = round(count * fraction) if fraction < 1 else int(fraction)
    wanted = min(max(wanted, 1), count)
    # Drawn, not every n-th: the pictures of a data set often come in an order that repeats.
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])
