"""CSV and TSV: one row for each box, columns found by their names.

Commas, tabs or semicolons stand between them.

Known heads: DeepForest's `image_path,xmin,ymin,xmax,ymax,label`, TensorFlow's
`filename,width,height,class,xmin,...`, `x,y,w,h` for a corner and sides, and one `bbox` column with
these four in brackets. Without a head: keras-retinanet's `path,x1,y1,x2,y2,class`, empty fields for
an image without objects. Without a class column everything is one class, `object`. Files of points
hold no boxes and are refused, and so are shares of the image.

Read where they are there, and written: flags (`ignore`, `crowd`, `difficult`, ...) and
`annotation_id`. A row with `ignore` and without a class is a region in which nothing is counted.
"""

import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from rfla.data.annotations import LARGEST_SIDE, Annotations, join
from rfla.data.formats.images import image_folders, require_directory, root_of, split_of
from rfla.data.formats.left_out import LeftOut
from rfla.data.formats.text import (
    REPEAT,
    as_text,
    is_number,
    parse_flag,
    parse_integer,
    parse_numbers,
    read_text,
    unique_whole,
)
from rfla.data.record import NO_CLASS, Classes, ImageRecord, Part, make_record
from rfla.errors import DataError

ALIASES = {
    "image": (
        "image_path",
        "filename",
        "file_name",
        "image",
        "img",
        "path",
        "image_id",
        "imageid",
        "img_path",
        "id",
        "file",
    ),
    "x1": ("xmin", "x1", "x_min", "left"),
    "y1": ("ymin", "y1", "y_min", "top"),
    "x2": ("xmax", "x2", "x_max", "right"),
    "y2": ("ymax", "y2", "y_max", "bottom"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "w": ("w", "box_width", "bbox_width", "bbox_w"),
    "h": ("h", "box_height", "bbox_height", "bbox_h"),
    "bbox": ("bbox", "box"),
    "label": ("label", "class", "class_name", "category", "name", "classname"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "annotation_id": ("annotation_id",),
    "ignore": ("ignore",),
    "crowd": ("crowd", "iscrowd"),
    "truncation": ("truncation",),
    "occlusion": ("occlusion",),
    "difficult": ("difficult",),
}
FLAGS = ("ignore", "crowd", "truncation", "occlusion", "difficult")
WRITTEN = (
    "image_path",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
    "label",
    "width",
    "height",
    "annotation_id",
    *FLAGS,
)
CORNERS, SIDES, ONE = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h"), ("bbox",)
HEADLESS = {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "label": 5}
ONE_CLASS = "object"
SUFFIXES = (".csv", ".tsv", ".txt")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is run by spreadsheets


def find(source: Path) -> dict[str, Part]:
    """Take one file, or the files of a directory, split by their names.

    Images beside or below them.

    Raises:
        DataError: There is no file, or two for one split.
    """
    if source.is_file():
        split = split_of(source.stem) or "train"
        return {split: Part((source,), _images(root_of(source), split))}
    folder = require_directory(source)
    files = _tables(folder.glob("*")) + _tables(folder.glob("annotations/*"))
    if not files:  # Roboflow has a directory for each split
        files = [file for file in _tables(folder.glob("*/*")) if split_of(file.parent.name)]
    if not files:
        raise DataError(f"source={source}: no .csv or .tsv file, here or in annotations/")
    parts: dict[str, Part] = {}
    for file in files:
        of_split = split_of(file.parent.name) if file.parent != folder else None
        split = of_split or split_of(file.stem) or "train"
        if split in parts:
            raise DataError(
                f"source={source}: {file.name} is a second file for '{split}'; "
                "give one as annotations=FILE"
            )
        parts[split] = Part((file,), _images(folder, split) + ((file.parent,) if of_split else ()))
    return parts


def _tables(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES[:2])


def _images(folder: Path, split: str) -> tuple[Path, ...]:
    beside = folder.parent / "images"
    return (*image_folders(folder, split), *([beside] if beside.is_dir() else []))


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the class names of all files, sorted."""
    seen = Classes(grows=True)
    for path in [path for part in parts for path in part.annotations]:
        with suppress(DataError):  # whoever reads the files refuses or counts it
            read_file(path, seen, strict=False)
    return Classes(sorted(seen.names) or [ONE_CLASS])


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the images of a split, in the order of their first rows.

    Args:
        part: The files of the split.
        classes: The class table; None: what the files of this split name.
        to_write: Ignored: this format reads the same either way.
        strict: Refuse a malformed row; otherwise leave it out and count it.

    Raises:
        DataError: With file and line, for a row that is none.
    """
    table = classes_of([part]) if classes is None else classes
    read = [read_file(path, table, strict) for path in part.annotations]
    return read[0] if len(read) == 1 else join(read, str(part.annotations[0]), renumber=True)


def read_file(path: Path, classes: Classes, strict: bool = True) -> Annotations:
    """Read one file.

    Raises:
        DataError: With file and line: columns that are missing, no finite number, an unknown class.
    """
    images: dict[str, _Rows] = {}
    left_out = LeftOut(strict)
    _read_rows(path, images, classes, left_out)
    if 0 < max((max(box) for rows in images.values() for box in rows.boxes), default=0) <= 1:
        raise DataError(
            f"{path}: no coordinate is above 1: these are normalised coordinates; pixels are needed"
        )
    ids = [number for rows in images.values() for number in rows.ids]
    keeps_ids = unique_whole(ids)
    records = [rows.record(name, str(path), keeps_ids) for name, rows in images.items()]
    store = left_out.noted_in(Annotations.of_records(records, classes))
    if not keeps_ids and any(number >= 0 for number in ids):
        store.note(f"ids of annotations that {REPEAT}", str(path), len(ids))
    return store


def _read_rows(path: Path, images: dict[str, "_Rows"], classes: Classes, left_out: LeftOut) -> None:
    """Read the rows of a file into `images`."""
    text = read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",\t;", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns: dict[str, int] = {}
    width = 0
    try:
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if not any(field.strip() for field in fields):
                continue
            if not columns:
                columns, is_head = _columns(fields, where)
                width = len(fields)
                if is_head:
                    continue
            try:
                _add(images, fields, width, columns, classes, where, reader.line_num)
            except DataError as error:
                left_out.refuse(error)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


class _Rows:
    """The rows of one image; `flags` has the columns that the file has."""

    def __init__(self, flags: Iterable[str]) -> None:
        self.boxes: list[list[float]] = []
        self.labels: list[int] = []
        self.lines: list[int] = []
        self.ids: list[int] = []
        self.flags: dict[str, list[int]] = {flag: [] for flag in flags}
        self.size = (0, 0)

    def record(self, name: str, where: str, keeps_ids: bool) -> ImageRecord:
        """Return the image with its boxes; difficult ones are ignored."""
        none = np.zeros(len(self.boxes), np.int64)
        flags = {flag: np.array(values, np.int64) for flag, values in self.flags.items()}
        ignore = (flags.pop("ignore", none) + flags.get("difficult", none)) > 0
        return make_record(
            name,
            where,
            self.boxes,
            self.labels,
            ignore=ignore,
            crowd=flags.pop("crowd", ignore) > 0,
            ids=self.ids if keeps_ids else None,
            lines=self.lines,
            size=self.size,
            attributes=flags,
        )


def _columns(fields: Sequence[str], where: str) -> tuple[dict[str, int], bool]:
    """Return the place of each column, and whether the row is a head."""
    names = [field.strip().lower().lstrip("#").strip() for field in fields]
    places = {
        key: names.index(alias)
        for key, aliases in ALIASES.items()
        for alias in reversed(aliases)
        if alias in names
    }
    if not places and len(fields) == len(HEADLESS) and _is_box(fields[1:5]):
        return HEADLESS, False
    if all(key in places for key in ("x", "y")) and not {"w", "x2", "bbox"} & places.keys():
        raise DataError(
            f"{where}: this file holds points (x, y) and no boxes; give it w and h columns first"
        )
    corners = _corners(places)
    missing = [key for key in ("image", *corners) if key not in places]
    if missing:
        known = "image_path,xmin,ymin,xmax,ymax,label or image,x,y,w,h,label"
        raise DataError(
            f"{where}: no column for {', '.join(missing)} among {','.join(names)[:120]!r}; "
            f"expected {known}"
        )
    return places, True


def _corners(places: Mapping[str, int]) -> tuple[str, ...]:
    """Return the columns that hold the box."""
    return CORNERS if "x2" in places else ONE if "bbox" in places else SIDES


def _is_box(fields: Sequence[str]) -> bool:
    """Tell whether four fields are numbers, or all empty (an image without objects)."""
    return not any(fields) or all(is_number(field) for field in fields)


def _add(
    images: dict[str, _Rows],
    fields: list[str],
    width: int,
    columns: dict[str, int],
    classes: Classes,
    where: str,
    line: int,
) -> None:
    if len(fields) != width:
        raise DataError(f"{where}: {len(fields)} columns, the first row has {width}")
    fields = [field.strip() for field in fields]
    name = fields[columns["image"]]
    if not name:
        raise DataError(f"{where}: no image name")
    if name.startswith("./") or "\\" in name:
        name = posixpath.normpath(name.replace("\\", "/"))  # rows of one image, written differently
    rows = images.setdefault(name, _Rows(flag for flag in FLAGS if flag in columns))
    if "width" in columns and "height" in columns:
        sides = [parse_integer(fields[columns[side]], where, side) for side in ("width", "height")]
        rows.size = (min(max(sides[0], 0), LARGEST_SIDE), min(max(sides[1], 0), LARGEST_SIDE))
    box = _box(fields, columns, where)
    if box is None:
        return  # an image without objects
    flags = {flag: parse_flag(fields[columns[flag]], where, flag) for flag in rows.flags}
    number = fields[columns["annotation_id"]] if "annotation_id" in columns else ""
    # Python refuses 5,000 digits
    whole = number.isascii() and number.isdigit() and len(number) < 20
    name = _from_cell(fields[columns["label"]]) if "label" in columns else ONE_CLASS
    region = not name and flags.get("ignore", 0) > 0
    label = NO_CLASS if region else classes.label(name, where)
    # Only now: a row that is refused must leave nothing of itself.
    rows.boxes.append(box)
    rows.labels.append(label)
    rows.ids.append(int(number) if whole else -1)
    rows.lines.append(line)
    for flag, value in flags.items():
        rows.flags[flag].append(value)


def _box(fields: Sequence[str], columns: Mapping[str, int], where: str) -> list[float] | None:
    """Read x1, y1, x2, y2, px; None of a row whose box is empty."""
    corners = _corners(columns)
    values = [fields[columns[key]] for key in corners]
    if not any(values):
        return None
    if corners == ONE:
        values = values[0].strip("[]()").replace(",", " ").split()
        if len(values) != 4:
            bbox = fields[columns["bbox"]][:60]
            raise DataError(f"{where}: bbox must be four numbers x, y, w, h, not {bbox!r}")
    first, second, third, fourth = parse_numbers(values, where)
    if corners == CORNERS:
        return [first, second, third, fourth]
    return [first, second, first + third, second + fourth]


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one file with the columns `WRITTEN`.

    An image without boxes has one row with empty fields. No cell is one that a spreadsheet would
    run as a formula.

    Returns:
        What could not be held, counted (nothing but ids of images and polygons, which are not
        counted).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [as_cell(name) for name in classes.names]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(WRITTEN)
        for record in records:
            image = as_path(record.file_name)
            size = (record.width, record.height)
            if not len(record):
                writer.writerow([image, "", "", "", "", "", *size, "", *([""] * len(FLAGS))])
            for row, box in enumerate(record.boxes.tolist()):
                label, number = int(record.labels[row]), int(record.ids[row])
                name = "" if label == NO_CLASS else names[label]
                identity = number if number >= 0 else ""
                corners = [as_text(value) for value in box]
                flags = _flags_of(record, row)
                writer.writerow([image, *corners, name, *size, identity, *flags])
    return Counter()


def _flags_of(record: ImageRecord, row: int) -> list[int | str]:
    """Return the flags of a box; empty where the record has none."""
    flags = {"ignore": record.ignore, "crowd": record.crowd} | record.attributes
    return [int(flags[flag][row]) if flag in flags else "" for flag in FLAGS]


def _runs_as_formula(text: str) -> bool:
    return text[:1] in FORMULA and bool(text)


def as_cell(text: str) -> str:
    """Return a text that a spreadsheet shows and does not run: with an apostrophe in front.

    `_from_cell` takes it away again.
    """
    return f"'{text}" if _runs_as_formula(text.lstrip("'")) else text


def _from_cell(text: str) -> str:
    quoted = text.startswith("'") and _runs_as_formula(text.lstrip("'"))
    return text[1:] if quoted else text


def as_path(name: str) -> str:
    """Return a name of an image that a spreadsheet does not run, and that still is its path."""
    return f"./{name}" if _runs_as_formula(name) else name
