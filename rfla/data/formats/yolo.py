"""YOLO: one text file for each image, rows `class xc yc w h` as shares of the image's sides, classes numbered from 0.

Rows of polygons (`class x y x y x y ...`) become the tight boxes round them. An image without a
file is one without objects. The format holds neither ignored regions nor ids. (Darknet;
Ultralytics' data set guide.)
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rfla.data.formats.images import ImageFinder, require_directory, split_of
from rfla.data.formats.record import (
    Classes,
    ImageRecord,
    Part,
    as_text,
    make_record,
    parse_integer,
    parse_numbers,
    read_text,
    tight_boxes,
)
from rfla.data.images import image_size, walk_images
from rfla.data.spec import load_data_spec
from rfla.data.yolo_index import label_path
from rfla.errors import DataError

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
TEXT_NAMES = ("classes.txt", "obj.names")


def find(source: Path) -> dict[str, Part]:
    """Find the splits of a data YAML, of `images/{split}` + `labels/{split}`, of `train.txt`, or one flat directory.

    `Part.images` are the places where images are: directories or `.txt` lists. `Part.annotations`
    is the YAML or empty.

    Raises:
        DataError: There is no image.
    """
    found = (
        source
        if source.suffix in {".yaml", ".yml"}
        else next((source / n for n in YAML_NAMES if (source / n).is_file()), None)
    )
    if found is not None:
        spec = load_data_spec(found)
        return {
            split: Part((found,), place.images)
            for split, place in spec.splits.items()
            if not place.annotations
        }
    if source.suffix == ".txt":
        return {"train": Part((), (source,))}
    return _folders(require_directory(source))


def _folders(source: Path) -> dict[str, Part]:
    images = source / "images" if (source / "images").is_dir() else source
    splits = sorted(path for path in images.iterdir() if path.is_dir() and split_of(path.name))
    if splits:
        return {split_of(path.name) or "train": Part((), (path,)) for path in splits}
    lists = sorted(path for path in source.glob("*.txt") if split_of(path.stem))
    if lists and not (source / "images").is_dir():
        return {split_of(path.stem) or "train": Part((), (path,)) for path in lists}
    if not walk_images(images):
        raise DataError(f"source={source}: no data.yaml and no image, here or in images/")
    return {"train": Part((), (images,))}


def classes(parts: Iterable[Part]) -> Classes:
    """Return the class names of the data YAML, of `classes.txt` or a `*.names` file.

    Else `class0`, `class1`, ...

    Raises:
        DataError: A file that is not readable.
    """
    highest = -1
    for part in parts:
        names = _yaml_names(part) or _text_names(part)
        if names:
            return Classes(names)
        for path in _images(part):
            for line in _lines(label_path(path)):
                highest = max(highest, parse_integer(line[1].split()[0], line[0], "class"))
    return Classes([f"class{number}" for number in range(highest + 1)])


def _yaml_names(part: Part) -> list[str]:
    return [name for path in part.annotations for name in load_data_spec(path).names]


def _text_names(part: Part) -> list[str]:
    for place in part.images:
        folders = [place, *place.parents[:3]] if place.is_dir() else list(place.parents[:3])
        for folder in folders:
            files = [folder / name for name in TEXT_NAMES if (folder / name).is_file()] + sorted(
                folder.glob("*.names")
            )
            for file in files:
                return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return []


def read(part: Part, classes: Classes) -> Iterator[ImageRecord]:
    """Read the labels of every image of a split. An unreadable image has no boxes and no size.

    Raises:
        DataError: With file and line, for a row that is none.
    """
    for place in part.images:
        folder = place if place.is_dir() else place.parent
        for image in _images(Part((), (place,))):
            inside = image.relative_to(folder) if image.is_relative_to(folder) else Path(image.name)
            try:
                height, width = image_size(image)
            except (
                DataError
            ):  # whoever opens the image will say so; without its size shares mean nothing
                yield make_record(inside.as_posix(), str(image), [], [])
                continue
            yield read_file(label_path(image), inside.as_posix(), (width, height), classes)


def _images(part: Part) -> list[Path]:
    images: list[Path] = []
    for place in part.images:
        images += walk_images(place) if place.is_dir() else _listed(place)
    return images


def _listed(path: Path) -> list[Path]:
    """Return the images of a list.

    A name that is not found as it stands is looked for by its last part.
    """
    finder = ImageFinder([path.parent])
    images = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            image = (
                Path(line.strip()) if Path(line.strip()).is_file() else finder.find(line.strip())
            )
            if image is None:
                raise DataError(
                    f"{path}:{number}: no such image, here or below {path.parent}: {line.strip()[:120]}"
                )
            images.append(image)
    return images


def _lines(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    return [
        (f"{path}:{number}", line)
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]


def read_file(path: Path, file_name: str, size: tuple[int, int], classes: Classes) -> ImageRecord:
    """Read one label file; none means no objects.

    Args:
        path: The label file.
        file_name: Of the image, for the record.
        size: Width and height of the image, px.
        classes: The class table.

    Raises:
        DataError: With file and line: wrong number of columns, no finite number, an unknown class,
            pixels for shares.
    """
    boxes: list[list[float]] = []
    labels: list[int] = []
    lines: list[int] = []
    for where, line in _lines(path):
        fields = line.split()
        if len(fields) < 5 or (len(fields) > 5 and (len(fields) < 7 or len(fields) % 2 == 0)):
            raise DataError(f"{where}: {len(fields)} columns, not the 5 of YOLO (class xc yc w h)")
        label = parse_integer(fields[0], where, "class")
        if not 0 <= label < len(classes.names):
            raise DataError(f"{where}: class {label} is none of 0 to {len(classes.names) - 1}")
        values = parse_numbers(fields[1:], where)
        if max(values) > 2:
            raise DataError(
                f"{where}: {max(values):g} is no share of the image; YOLO coordinates are between 0 and 1"
            )
        boxes.append(_box(values, size))
        labels.append(label)
        lines.append(int(where.rpartition(":")[2]))
    return make_record(file_name, str(path), boxes, labels, lines=lines, size=size)


def _box(values: list[float], size: tuple[int, int]) -> list[float]:
    width, height = size
    if len(values) > 4:
        return [
            float(v) for v in tight_boxes(np.array([values]))[0] * (width, height, width, height)
        ]
    xc, yc, w, h = values
    return [
        (xc - w / 2) * width,
        (yc - h / 2) * height,
        (xc + w / 2) * width,
        (yc + h / 2) * height,
    ]


def write(folder: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write a label file for each record, below `folder` as its image is below the image directory.

    Coordinates are written to the last digit. Ignored and crowd boxes are left out: YOLO would make
    them objects.

    Returns:
        What could not be held, counted.
    """
    lost: Counter[str] = Counter()
    for record in records:
        kept = record.select(~(record.ignore | record.crowd))
        if len(kept) < len(record):
            lost["ignored boxes (YOLO cannot hold them; to=coco can)"] += len(record) - len(kept)
        path = folder / Path(record.file_name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(kept, row) for row in range(len(kept))), encoding="utf-8")
    return lost


def _line(record: ImageRecord, row: int) -> str:
    x1, y1, x2, y2 = record.boxes[row].tolist()
    width, height = record.width, record.height
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(record.labels[row]), *map(as_text, shares)]) + "\n"
