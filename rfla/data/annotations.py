"""All images and boxes of a split in flat arrays: a few of them for 752,754 boxes.

Every reader of `rfla.data.formats` fills this store; training, conversion, inspection and
evaluation take it. Shapes: N images, M boxes, C classes. The boxes of image `i` are rows
`box_start[i]:box_start[i + 1]`. Forked workers share the arrays, nothing is copied.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.data.image_header import refuse_too_large
from rfla.data.images import Image, read_annotated, read_image
from rfla.data.pixel_range import Range
from rfla.data.record import Classes, ImageRecord, is_object
from rfla.errors import DataError, counted

LARGEST_SIDE = 2**31 - 1  # px; no side of an image is larger

# Entries of `Annotations.counts` that others look for.
REFUSED = "rows that training refuses left out"
REFUSED_FILES = "annotation files that training refuses left out, and their images"
GROUP = "category without boxes that only groups the others (supercategory), read as no class"
REGIONS = "boxes of category 0 or -1, which is no class, read as ignored regions"
MISSING = "images without a file left out"
UNOPENED = "images that cannot be opened"

_OF_BOXES = ("boxes", "labels", "ignore", "crowd", "area", "stated", "ids", "lines")
_OF_IMAGES = ("paths", "image_ids", "image_hw", "sources", "other_names", "windows")


@dataclass(frozen=True, eq=False)
class Annotations:
    """Images and boxes of one split (or of joined ones), in file order.

    Attributes:
        name: For messages, as `demo/train`.
        names: Class names in label order, C of them.
        category_ids: The annotation files' category id of each label.
        paths: (N,) str: names as the files write them; absolute paths from `load_index`.
        image_ids: (N,) int64, or str where the files use text.
        image_hw: (N, 2) int32 height and width, px, as the annotations state them; 0 where they do
            not.
        box_start: (N + 1,) int64.
        boxes: (M, 4) xyxy, px of the original image: float64 as read, float32 from `load_index`.
        labels: (M,) int64, 0-based, or `NO_CLASS` for a region.
        ignore: (M,) bool, regions that are neither object nor background.
        crowd: (M,) bool, one box for many objects (`iscrowd`).
        area: (M,) float64 px^2, as stated in the file, else width x height.
        stated: (M, 4) float64 x, y, width, height px exactly as the file has them, for evaluation;
            None in training.
        ids: (M,) int64 ids of the annotations, -1 where the format has none.
        lines: (M,) int64 line of each box in its file; 0 where that means nothing.
        attributes: What only some formats know, one row for each box, as in `ImageRecord`.
        sources: (N,) str, the annotation file of each image.
        other_names: (N,) str, what the image file may be called instead, or "".
        windows: (N, 4) int32 x1, y1, x2, y2 of the picture that an image is (TinyPerson's
            `corner`); 0 for a whole one.
        value_range: Values that become 0 and 255 in files of more than 8 bits; None takes those
            of each file.
        own_ids: Whether `image_ids` are the file's own whole numbers.
        counts: What was repaired, and how often.
        dropped: Boxes that the reader left out, by reason.
        examples: The first place of each entry of `counts` and `dropped`.
    """

    name: str
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    paths: NDArray[np.str_]
    image_ids: NDArray[Any]
    image_hw: NDArray[np.int32]
    box_start: NDArray[np.int64]
    boxes: NDArray[Any]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    stated: NDArray[np.float64] | None = None
    ids: NDArray[np.int64] | None = None
    lines: NDArray[np.int64] | None = None
    attributes: dict[str, NDArray[Any]] = field(default_factory=dict)
    sources: NDArray[np.str_] | None = None
    other_names: NDArray[np.str_] | None = None
    windows: NDArray[np.int32] | None = None
    value_range: Range | None = None
    own_ids: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_index(self) -> NDArray[np.int64]:
        """(M,) row of the image that each box belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.box_start))

    def rows_of(self, image: int) -> slice:
        """Rows of the boxes of one image."""
        return slice(int(self.box_start[image]), int(self.box_start[image + 1]))

    def window(self, image: int) -> tuple[int, int, int, int] | None:
        """x1, y1, x2, y2 of the picture file that one image is, px; None for the whole picture."""
        if self.windows is None or not self.windows[image].any():
            return None
        x1, y1, x2, y2 = self.windows[image].tolist()
        return x1, y1, x2, y2

    def read_image(self, image: int, *, remarks: list[str] | None = None) -> Image:
        """The pixels of one image, (H, W, 3) uint8 RGB, at the size of its file.

        Args:
            image: Its row.
            remarks: As in `rfla.data.images.read_image`.

        Raises:
            DataError: As in `rfla.data.images.read_annotated`.
        """
        height, width = (int(side) for side in self.image_hw[image])
        path, window, limits = str(self.paths[image]), self.window(image), self.value_range
        if window is None:
            return read_annotated(path, (height, width), value_range=limits, remarks=remarks)
        x1, y1, x2, y2 = window
        pixels = read_image(path, value_range=limits, remarks=remarks)[y1:y2, x1:x2]
        if pixels.shape[:2] != (y2 - y1, x2 - x1):
            raise DataError(f"{path}: the tile {window} is not inside this picture")
        return pixels

    def picture(self, image: int) -> Image:
        """The picture of one image, (H, W, 3) uint8 RGB, at the size that its annotations state.

        Boxes fit as they are.

        Raises:
            DataError: As in `rfla.data.images.read_annotated`.
        """
        height, width = (int(side) for side in self.image_hw[image])
        pixels = self.read_image(image)
        if pixels.shape[:2] == (height, width):
            return pixels
        try:
            refuse_too_large(width, height)  # a stated size is not to be believed blindly
        except DataError as error:
            raise DataError(
                f"{self.paths[image]}: its annotations state {width} x {height} px: {error}"
            ) from None
        return np.asarray(
            cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
        )

    def take(self, images: NDArray[np.int64]) -> "Annotations":
        """Some of the images with their boxes, in the order given."""
        sizes = np.diff(self.box_start)[images]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(self.box_start[images] - start[:-1], sizes) + np.arange(start[-1])
        of_images: dict[str, Any] = {
            name: _chosen(getattr(self, name), images) for name in _OF_IMAGES
        }
        return replace(self, box_start=start, **of_images, **self._of_boxes(rows))

    def keep_boxes(self, keep: NDArray[np.bool_]) -> "Annotations":
        """Only the boxes where `keep` (M,) is true; all images stay."""
        kept = np.concatenate([[0], np.cumsum(keep)])
        return replace(
            self, box_start=kept[self.box_start].astype(np.int64), **self._of_boxes(keep)
        )

    def _of_boxes(self, rows: NDArray[Any]) -> dict[str, Any]:
        columns: dict[str, Any] = {name: _chosen(getattr(self, name), rows) for name in _OF_BOXES}
        columns["attributes"] = {name: values[rows] for name, values in self.attributes.items()}
        return columns

    def note(self, what: str, where: str, count: int = 1) -> None:
        """Count a repair and remember its first place."""
        self.counts[what] += count
        self.examples.setdefault(what, where)

    def size(self) -> str:
        """Numbers of images and boxes, in words."""
        return f"{counted(len(self), 'image')}, {counted(len(self.boxes), 'box', 'boxes')}"

    def summary(self) -> str:
        """One line: images, boxes, and each repair with its count and first place."""
        text = f"{self.name}: {self.size()}"
        repairs = [
            f"{count:,} {what} (first: {self.examples[what]})"
            for what, count in self.counts.items()
        ]
        return text + ("; " + "; ".join(repairs) if repairs else "")

    def records(self) -> Iterator[ImageRecord]:
        """Each image with its boxes, for what works image by image (conversion)."""
        return (self.record(image) for image in range(len(self)))

    def record(self, image: int) -> ImageRecord:
        """One image with its boxes, as views of the arrays."""
        rows = self.rows_of(image)
        count = rows.stop - rows.start
        height, width = self.image_hw[image].tolist()
        return ImageRecord(
            file_name=str(self.paths[image]),
            where=self.name if self.sources is None else str(self.sources[image]),
            width=width,
            height=height,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            ignore=self.ignore[rows],
            crowd=self.crowd[rows],
            ids=np.full(count, -1, np.int64) if self.ids is None else self.ids[rows],
            lines=np.zeros(count, np.int64) if self.lines is None else self.lines[rows],
            image_id=int(self.image_ids[image]) if self.own_ids else None,
            attributes={name: values[rows] for name, values in self.attributes.items()},
            window=self.window(image),
            other_name="" if self.other_names is None else str(self.other_names[image]),
        )

    @staticmethod
    def of_records(records: Iterable[ImageRecord], classes: Classes) -> "Annotations":
        """Flat arrays of images that were read one by one."""
        listed = list(records)
        boxes = _joined([record.boxes for record in listed], (0, 4), np.float64)
        with np.errstate(over="ignore"):  # files can state 1e308 px
            sides = boxes[:, 2:] - boxes[:, :2]
            area = sides[:, 0] * sides[:, 1]
        columns: dict[str, Any] = {
            name: _joined([getattr(record, name) for record in listed], (0,), kind)
            for name, kind in (
                *(("labels", np.int64), ("ignore", np.bool_), ("crowd", np.bool_)),
                *(("ids", np.int64), ("lines", np.int64)),
            )
        }
        windows = [record.window or (0, 0, 0, 0) for record in listed]
        counts = [len(record) for record in listed]
        own_ids = bool(listed) and all(record.image_id is not None for record in listed)
        ids = [record.image_id for record in listed] if own_ids else range(1, len(listed) + 1)
        return Annotations(
            name=listed[0].where if listed else "",
            names=tuple(classes.names),
            category_ids=tuple(classes.ids),
            paths=np.array([record.file_name for record in listed], np.str_),
            image_ids=np.array(ids, np.int64),
            image_hw=_in_int32([(record.height, record.width) for record in listed]).reshape(-1, 2),
            box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=boxes,
            stated=np.concatenate([boxes[:, :2], sides], axis=1),
            area=area,
            attributes=_attributes([record.attributes for record in listed], counts),
            sources=np.array([record.where for record in listed], np.str_),
            other_names=np.array([record.other_name for record in listed], np.str_),
            windows=_in_int32(windows) if np.any(windows) else None,
            own_ids=own_ids,
            **columns,
        )


def _in_int32(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Whole numbers as they are written, those beyond an image's largest side as that."""
    return np.array(np.clip(rows, 0, LARGEST_SIDE), np.int32) if rows else np.zeros(0, np.int32)


def join(parts: Sequence[Annotations], name: str, renumber: bool = False) -> Annotations:
    """All images and boxes of several splits or files, one after the other.

    Args:
        parts: In this order.
        name: Of the whole, for messages.
        renumber: Give up the ids of images; otherwise they are numbered anew where the parts
            repeat them, and this is counted.

    Raises:
        DataError: The parts have other classes.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.names != first.names:
            raise DataError(
                f"{part.name}: classes {list(part.names)} differ from {list(first.names)} "
                f"in {first.name}"
            )
    counts, dropped = Counter[str](), Counter[str]()
    examples: dict[str, str] = {}
    for part in parts:
        counts.update(part.counts)
        dropped.update(part.dropped)
        examples = part.examples | examples
    if len(parts) == 1:
        return replace(first, name=name)
    starts = np.cumsum([0, *(len(part.boxes) for part in parts)])
    shared: dict[str, Any] = {
        column: _together([getattr(part, column) for part in parts])
        for column in (*_OF_BOXES, *_OF_IMAGES)
    }
    ids = shared.pop("image_ids")
    own_ids = all(part.own_ids for part in parts) and not renumber
    if renumber:
        ids = np.arange(1, len(ids) + 1)
    elif len(set(ids.tolist())) < len(ids):
        ids, own_ids = np.arange(1, len(ids) + 1), False
        what = "image ids renumbered because the joined splits repeat them"
        counts[what], examples[what] = len(ids), name
    return Annotations(
        name=name,
        names=first.names,
        category_ids=first.category_ids,
        image_ids=ids,
        box_start=np.concatenate(
            [[0], *(p.box_start[1:] + start for p, start in zip(parts, starts, strict=False))]
        ).astype(np.int64),
        attributes=_attributes([p.attributes for p in parts], [len(p.boxes) for p in parts]),
        own_ids=own_ids,
        counts=counts,
        dropped=dropped,
        examples=examples,
        **shared,
    )


def _chosen(values: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any] | None:
    return None if values is None else values[rows]


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty, kind), *parts]).astype(kind, copy=False)


def _together(parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """One column of several parts; None where one of them does not have it."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _attributes(
    parts: Sequence[dict[str, NDArray[Any]]], counts: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """The attribute columns of several parts; 0 or NaN where a part does not have one."""
    columns: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next(part[name] for part in parts if name in part)
        missing: Any = np.nan if like.dtype.kind == "f" else 0
        columns[name] = np.concatenate(
            [
                part.get(name, np.full((count, *like.shape[1:]), missing, like.dtype))
                for part, count in zip(parts, counts, strict=True)
            ]
        )
    return columns


def objects_per_image(annotations: Annotations) -> NDArray[np.int64]:
    """(N,) how many objects to find each image has."""
    return np.bincount(annotations.image_index[is_object(annotations)], minlength=len(annotations))


def first_place(annotations: Annotations, row: int) -> str:
    """Where a box is, for a message: its image, corner and size."""
    image = int(np.searchsorted(annotations.box_start, row, side="right")) - 1
    x1, y1, x2, y2 = (float(value) for value in annotations.boxes[row])
    name = Path(str(annotations.paths[image])).name
    if not np.isfinite(annotations.boxes[row]).all():
        return f"{name}, its box number {row - int(annotations.box_start[image]) + 1}"
    return f"{name} at x={x1:g} y={y1:g}, {x2 - x1:g} x {y2 - y1:g} px"
