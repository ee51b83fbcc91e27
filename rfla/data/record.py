"""One image with its boxes, the table of classes, and the files of a split.

Shapes: n boxes of one image. Boxes are (n, 4) float64 xyxy in px of the image, x to the right, y
down, as the file states them: nothing is rounded, clipped or dropped here, so that a file can be
written back as it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rfla.errors import DataError, did_you_mean, printable, require_short_name

NO_CLASS = -1  # label of a region in which objects of any class are not counted

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Flagged(Protocol):
    """Boxes of an image or of a split, with (n,) of each."""

    @property
    def labels(self) -> Integers:
        """Row of the class table, or `NO_CLASS`."""
        ...

    @property
    def ignore(self) -> Flags:
        """Not to be learned."""
        ...

    @property
    def crowd(self) -> Flags:
        """A region of many objects."""
        ...


def is_object(boxes: Flagged) -> Flags:
    """(n,) which boxes are objects to find: no ignored region, no crowd."""
    objects: Flags = ~(boxes.ignore | boxes.crowd) & (boxes.labels != NO_CLASS)
    return objects


@dataclass(slots=True)
class ImageRecord:
    """One image and its boxes.

    Attributes:
        file_name: Image file relative to the image directory, `/` between parts; absolute where the
            reader knows that another would be found.
        where: The annotation file, with `:line` or a record where that helps, for messages.
        width: In px; 0 where the format does not state it.
        height: In px; 0 where the format does not state it.
        boxes: (n, 4) xyxy px.
        labels: (n,) row of the class table, or `NO_CLASS`.
        ignore: (n,) not to be learned and not to be counted as missed (ignored regions, difficult
            objects).
        crowd: (n,) a region of many objects: detections inside it are compared by their overlap
            with the detection.
        ids: (n,) annotation ids; all -1 where the format has none.
        lines: (n,) line of each box in its file; 0 where that means nothing.
        image_id: The file's own number of the image, or None.
        attributes: What only some formats know, one row for each box: `area` (n,) float64,
            `polygon` (n, 8) float64, and (n,) int64 `truncation`, `occlusion`, `difficult`,
            `category`.
        window: x1, y1, x2, y2 of the file's picture that this record is about (TinyPerson's
            `corner`), or None.
        other_name: What the image file may be called instead, or "".
    """

    file_name: str
    where: str
    width: int = 0
    height: int = 0
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4)))
    labels: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    ignore: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    crowd: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    ids: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    lines: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    image_id: int | None = None
    attributes: dict[str, NDArray[Any]] = field(default_factory=dict)
    window: tuple[int, int, int, int] | None = None
    other_name: str = ""

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: NDArray[Any]) -> "ImageRecord":
        """Return a copy with the boxes of `rows` (a mask or indices)."""
        return ImageRecord(
            file_name=self.file_name,
            where=self.where,
            width=self.width,
            height=self.height,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            ignore=self.ignore[rows],
            crowd=self.crowd[rows],
            ids=self.ids[rows],
            lines=self.lines[rows],
            image_id=self.image_id,
            attributes={name: values[rows] for name, values in self.attributes.items()},
            window=self.window,
            other_name=self.other_name,
        )

    def scaled(self, x: float, y: float) -> "ImageRecord":
        """Return a copy with all coordinates multiplied by the factors."""
        scaled = replace(self, boxes=self.boxes * (x, y, x, y), attributes=dict(self.attributes))
        for name, factor in (("area", x * y), ("polygon", np.array([x, y] * 4))):
            if name in self.attributes:
                scaled.attributes[name] = self.attributes[name] * factor
        return scaled

    def place(self, row: int) -> str:
        """Return where a box is written: `file:line`, or the file and the id of the box."""
        if self.lines[row]:
            return f"{self.where}:{self.lines[row]}"
        return f"{self.where} (id {self.ids[row]})" if self.ids[row] >= 0 else self.where


def make_record(
    file_name: str,
    where: str,
    boxes: Iterable[Sequence[float]],
    labels: Iterable[int],
    *,
    ignore: Iterable[bool] | None = None,
    crowd: Iterable[bool] | None = None,
    ids: Iterable[int] | None = None,
    lines: Iterable[int] | None = None,
    size: tuple[int, int] = (0, 0),
    attributes: dict[str, NDArray[Any]] | None = None,
) -> ImageRecord:
    """Build a record from lists; what is left out is filled in. `size` is (width, height) px."""
    array = np.array(list(boxes), np.float64).reshape(-1, 4)
    count = len(array)
    return ImageRecord(
        file_name=file_name,
        where=where,
        width=size[0],
        height=size[1],
        boxes=array,
        labels=np.array(list(labels), np.int64),
        ignore=np.zeros(count, np.bool_) if ignore is None else np.array(list(ignore), np.bool_),
        crowd=np.zeros(count, np.bool_) if crowd is None else np.array(list(crowd), np.bool_),
        ids=np.full(count, -1, np.int64) if ids is None else np.array(list(ids), np.int64),
        lines=np.zeros(count, np.int64) if lines is None else np.array(list(lines), np.int64),
        attributes=attributes or {},
    )


def largest_areas(boxes: Floats) -> Floats:
    """Return the largest area that an object of each box can have: (n,) px^2.

    More than width x height by what the rounding of sides to two decimals and of the area to a
    whole number can add.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(sides.prod(axis=1) + 0.01 * sides.sum(axis=1) + 0.5)


class Classes:
    """The class table: names in label order, and the number that each has in annotation files.

    Args:
        names: Names in label order.
        ids: Their category ids; by default 1, 2, ...
        grows: Take unknown names as new classes (used for a first pass over files that state no
            table).
    """

    def __init__(
        self, names: Sequence[str] = (), ids: Sequence[int] | None = None, *, grows: bool = False
    ) -> None:
        for name in names:
            require_short_name(name, "names")
        self.names = [printable(name, keep="") for name in names]  # they end in files and pictures
        self.ids = list(range(1, len(self.names) + 1)) if ids is None else list(ids)
        self.grows = grows
        self._by_name = {name: label for label, name in enumerate(self.names)}
        self._by_id = {number: label for label, number in enumerate(self.ids)}

    def label(self, name: str, where: str) -> int:
        """Return the label of a class name.

        Raises:
            DataError: The table does not hold it.
        """
        name = printable(name, keep="")
        label = self._by_name.get(name)
        if label is not None:
            return label
        if not name:
            raise DataError(f"{where}: no class name")
        require_short_name(name, where)
        if not self.grows:
            known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            raise DataError(
                f"{where}: unknown class {name[:80]!r}; classes are {known}"
                f"{did_you_mean(name, self.names)}"
            )
        self.names.append(name)
        self.ids.append(len(self.names))
        self._by_name[name] = self._by_id[len(self.names)] = len(self.names) - 1
        return len(self.names) - 1

    def label_of_id(self, number: int, where: str) -> int:
        """Return the label of a category id.

        Raises:
            DataError: The table does not hold it.
        """
        label = self._by_id.get(number)
        if label is None:
            known = ", ".join(str(known) for known in self.ids[:20])
            raise DataError(f"{where}: unknown category id {number}; ids are {known}")
        return label

    def ids_in(self, table: Mapping[str, int], format: str) -> list[int]:
        """Return the number that each class has in a format whose classes are fixed.

        Raises:
            DataError: The format does not have one of them.
        """
        for name in self.names:
            if name not in table:
                few = f": {', '.join(table)}" if len(table) <= 20 else ""
                near = did_you_mean(name, table)
                raise DataError(
                    f"to={format}: class '{name}' is none of the {len(table)} of this format"
                    f"{few}{near}"
                )
        return [table[name] for name in self.names]


@dataclass(frozen=True)
class Part:
    """The files of one split.

    Attributes:
        annotations: The annotation files.
        images: Directories that its images are looked for in, the most likely first.
        split: Set where one file holds several splits: the one that is meant.
        root: Directory of the data set, that the entries of image lists are relative to.
    """

    annotations: tuple[Path, ...]
    images: tuple[Path, ...]
    split: str = ""
    root: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """The directories among `images`, and those that its lists and files are in."""
        return [place if place.is_dir() else place.parent for place in self.images]
