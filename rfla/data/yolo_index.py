"""Ultralytics YOLO labels -> `Rows`: `cls xc yc w h` as shares of the image, one text file beside each image."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rfla.data.images import image_size, is_image, walk_images
from rfla.data.rows import REFUSED, UNOPENED, Rows
from rfla.errors import DataError

_SLACK = 0.01  # Ultralytics accepts coordinates up to 1.01


def read_yolo_rows(
    places: Sequence[Path], names: tuple[str, ...], *, root: Path, source: Path, strict: bool = True
) -> Rows:
    """Read the images of directories and `.txt` lists with their YOLO labels.

    An image without a label file, or with an empty one, is an image without objects. Rows of
    polygons (`cls x y x y ...`) become their bounding boxes. The size of each image is read from
    its header.

    Args:
        places: Directories (searched recursively) and lists.
        names: Class names; labels are indices into them.
        root: Directory that list entries without `./` are relative to.
        source: The data YAML, for messages.
        strict: Refuse a malformed row; otherwise leave it out and count it.

    Raises:
        DataError: With file and line: not 5 numbers, a class that is not in `names`, pixels instead
            of shares.
    """
    if not names:
        raise DataError(f"{source}: YOLO labels need `names:` (class names in label order)")
    paths = list(dict.fromkeys(path for place in places for path in _images_of(place, root)))
    if not paths:
        raise DataError(f"{', '.join(map(str, places))}: no images in this directory")
    sizes = _read_sizes(paths)
    rows = Rows(
        source=source,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        paths=[str(path) for path in paths],
        image_ids=[*range(1, len(paths) + 1)],
        image_hw=[size or (1, 1) for size in sizes],
        image_index=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4)),
        sides=np.zeros((0, 2)),
        labels=np.zeros(0, np.int64),
        ignore=np.zeros(0, bool),
        crowd=np.zeros(0, bool),
        area=np.zeros(0),
    )
    _fill_boxes(rows, paths, sizes, strict)
    return rows


def label_path(image: Path) -> Path:
    """Where the labels of an image are: the last `images` directory becomes `labels`, the suffix `.txt`."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _fill_boxes(
    rows: Rows, paths: Sequence[Path], sizes: Sequence[tuple[int, int] | None], strict: bool
) -> None:
    image_index: list[int] = []
    values: list[tuple[float, ...]] = []
    for row, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if size is None:
            rows.note(UNOPENED, str(path))
        found = _read_labels(label_path(path), rows, strict)
        image_index += [row] * len(found)
        values += found
    table = np.array(values, np.float64).reshape(-1, 5)
    rows.image_index = np.array(image_index, np.int64)
    rows.labels = table[:, 0].astype(np.int64)
    width_height = np.array(rows.image_hw, np.float64).reshape(-1, 2)[rows.image_index][:, ::-1]
    centres, sides = table[:, 1:3] * width_height, table[:, 3:5] * width_height
    rows.boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    rows.sides = sides
    rows.area = sides[:, 0] * sides[:, 1]
    rows.ignore = np.zeros(len(table), bool)
    rows.crowd = np.zeros(len(table), bool)


def _read_labels(path: Path, rows: Rows, strict: bool) -> list[tuple[float, ...]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    found = []
    for number, fields in enumerate((line.split() for line in text.splitlines()), 1):
        if not fields:
            continue
        try:
            found.append(_parse_row(path, number, fields, rows))
        except DataError as error:
            if strict:
                raise
            rows.note(REFUSED, str(error))
    return found


def _parse_row(path: Path, number: int, fields: list[str], rows: Rows) -> tuple[float, ...]:
    where = f"{path}:{number}"
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise DataError(
            f"{where}: '{' '.join(fields)[:60]}' is not a row of numbers `cls xc yc w h`"
        ) from None
    label, num_classes = values[0], len(rows.names)
    if not label.is_integer() or not 0 <= label < num_classes:
        raise DataError(
            f"{where}: class {fields[0]} is not one of 0 to {num_classes - 1}, the classes in names"
        )
    if len(values) >= 7 and len(values) % 2 == 1:
        rows.note("polygon rows turned into boxes", where)
        xs, ys = values[1::2], values[2::2]
        values = [
            label,
            (min(xs) + max(xs)) / 2,
            (min(ys) + max(ys)) / 2,
            max(xs) - min(xs),
            max(ys) - min(ys),
        ]
    if len(values) != 5:
        raise DataError(f"{where}: {len(values)} columns; a row is `cls xc yc w h`")
    finite = [value for value in values[1:] if math.isfinite(value)]
    if any(value > 1 + _SLACK for value in finite):
        raise DataError(
            f"{where}: {max(finite):g} is above 1; coordinates are shares of the image, not pixels"
        )
    return tuple(values)


def _images_of(place: Path, root: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from walk_images(place)
        return
    if place.suffix.lower() != ".txt":
        if is_image(place):
            yield place
            return
        raise DataError(f"{place}: neither a directory, a .txt list nor an image")
    for line in place.read_text(encoding="utf-8-sig").splitlines():
        entry = line.strip()
        if entry:  # Ultralytics: `./x` is relative to the list, anything else to the root
            yield place.parent / entry[2:] if entry.startswith("./") else root / entry


def _read_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    with ThreadPoolExecutor(max_workers=8) as pool:  # waiting for the disk, not for a core
        return list(pool.map(_size_or_none, paths, chunksize=64))


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except DataError:
        return None
