"""YOLO: one text file for each image.

Rows are `class xc yc w h`, classes from 0, coordinates as shares of the image's sides.

Rows of polygons (`class x y x y x y ...`) become the tight boxes round them. An image without a
file is one without objects. The format holds neither ignored regions nor ids. (Darknet;
Ultralytics' data set guide.)
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rfla.cfg.yaml_file import is_yaml
from rfla.data.annotations import MISSING, REFUSED, UNOPENED, Annotations
from rfla.data.data_yaml import MOST_CLASSES, YAML_NAMES, DataYaml, check_names, read_data_yaml
from rfla.data.formats.images import ImageFinder, is_file, require_directory, split_of
from rfla.data.formats.text import as_text, parse_integer, read_text
from rfla.data.image_files import is_image, walk_images
from rfla.data.images import image_size
from rfla.data.record import Classes, ImageRecord, Part, is_object
from rfla.errors import DataError

TEXT_NAMES = ("classes.txt", "obj.names")
LIMIT = 2.0  # a share over 1 is a box over the border, which is clipped; far over it is a pixel
BESIDE = "label files found beside their images"
POLYGONS = "polygon rows turned into boxes"


def find(source: Path) -> dict[str, Part]:
    """Find the splits of a data YAML, of `images/{split}`, of `train.txt`, or one directory.

    `Part.images` are the places where images are: directories or `.txt` lists. `Part.annotations`
    is the YAML or empty.

    Raises:
        DataError: There is no image.
    """
    yaml = yaml_of(source)
    if yaml is not None:
        return of_yaml(read_data_yaml(yaml))
    if source.suffix.lower() == ".txt":
        return {"train": Part((), (source,), root=source.parent)}
    return _folders(require_directory(source))


def yaml_of(source: Path) -> Path | None:
    """Return the data YAML that `source` is or holds."""
    if is_yaml(source):
        return source
    return next((source / name for name in YAML_NAMES if (source / name).is_file()), None)


def of_yaml(yaml: DataYaml) -> dict[str, Part]:
    """Return the splits of a data YAML that are image directories or lists."""
    return {
        name: replace(split.part, annotations=(yaml.path,))
        for name, split in yaml.splits.items()
        if split.format == "yolo"
    }


def _folders(source: Path) -> dict[str, Part]:
    images = source / "images" if (source / "images").is_dir() else source
    # of `set/images/train` too the data set is `set`
    named_images = (place for place in (source, source.parent) if place.name == "images")
    root = next((place.parent for place in named_images), source)
    splits = sorted(path for path in images.iterdir() if path.is_dir() and split_of(path.name))
    if splits:
        return {split_of(path.name) or "train": Part((), (path,), root=root) for path in splits}
    lists = sorted(path for path in source.glob("*.txt") if split_of(path.stem))
    if lists and not (source / "images").is_dir():
        return {split_of(path.stem) or "train": Part((), (path,), root=source) for path in lists}
    if not walk_images(images):
        raise DataError(f"source={source}: no data.yaml and no image, here or in images/")
    return {"train": Part((), (images,), root=root)}


def classes_of(parts: Iterable[Part]) -> Classes:
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
        for path in images_of(part, []):
            for where, fields in _lines(label_file(path)):
                highest = max(highest, parse_integer(fields[0], where, "class"))
    if highest >= MOST_CLASSES:
        raise DataError(f"class {highest} in the labels: at most {MOST_CLASSES} classes")
    return Classes([f"class{number}" for number in range(highest + 1)])


def _yaml_names(part: Part) -> Sequence[str]:
    return [name for path in part.annotations for name in read_data_yaml(path).names]


def _text_names(part: Part) -> list[str]:
    """Read the names beside the images, or above them as far as the data set goes."""
    for place in part.images:
        root = part.root or place.parent
        above = [folder for folder in place.parents if folder.is_relative_to(root)]
        for folder in [place, *above] if place.is_dir() else above:
            files = [folder / name for name in TEXT_NAMES if (folder / name).is_file()]
            for file in [*files, *sorted(folder.glob("*.names"))]:
                names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
                check_names(file, names)
                return names
    return []


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the labels of every image of a split; sizes are read from the headers of the images.

    Args:
        part: Directories (searched recursively) and `.txt` lists of images.
        classes: The class table; None: what the files of this split name.
        to_write: Refuse a box whose numbers are not finite; otherwise it becomes NaN.
        strict: Refuse a malformed row; otherwise leave it out and count it.

    Raises:
        DataError: With file and line, for a row that is none; no image at all.
    """
    table = classes_of([part]) if classes is None else classes
    missing: list[str] | None = None if to_write else []
    paths = list(dict.fromkeys(images_of(part, missing)))
    if not paths:
        why = f"none of the listed images is there; the first: {missing[0]}" if missing else ""
        places = ", ".join(map(str, part.images))
        raise DataError(f"{places}: {why or 'no images in this directory'}")
    labels = _Labels(len(table.names), to_write, strict)
    for image in missing or []:
        labels.note(MISSING, image)
    for row, path in enumerate(paths):
        file = label_file(path)
        labels.read(row, file)
        if file != label_path(path):
            labels.note(BESIDE, str(file))
    names = _names_to_write(paths, part) if to_write else [str(path) for path in paths]
    sizes = _sizes(paths)
    unopened = [path for path, size in zip(paths, sizes, strict=True) if size is None]
    store = _assemble(paths, names, sizes, labels, table, to_write)
    if unopened:
        store.note(UNOPENED, str(unopened[0]), len(unopened))
    return store


def _assemble(
    paths: Sequence[Path],
    names: Sequence[str],
    sizes: Sequence[tuple[int, int] | None],
    labels: "_Labels",
    classes: Classes,
    to_write: bool,
) -> Annotations:
    """Turn shares into px; without the size of its image a share means nothing, and is left out."""
    image_hw = np.array([size or (0, 0) for size in sizes], np.int32).reshape(-1, 2)
    table = np.array(labels.rows, np.float64).reshape(-1, 7)
    if to_write:
        table = table[image_hw[table[:, 0].astype(np.int64), 0] > 0]
    images = table[:, 0].astype(np.int64)
    width_height = np.maximum(image_hw[images][:, ::-1], 1).astype(np.float64)
    centres, sides = table[:, 3:5] * width_height, table[:, 5:7] * width_height
    corners = centres - sides / 2
    none = np.zeros(len(table), np.bool_)
    label_files = [str(label_file(path)) for path in paths] if to_write else None
    return Annotations(
        name=label_files[0] if label_files else "",
        names=tuple(classes.names),
        category_ids=tuple(classes.ids),
        paths=np.array(names, np.str_),
        image_ids=np.arange(1, len(paths) + 1),
        image_hw=image_hw,
        box_start=np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(paths)))]),
        boxes=np.concatenate([corners, centres + sides / 2], axis=1),
        labels=table[:, 2].astype(np.int64),
        ignore=none,
        crowd=none.copy(),
        area=sides[:, 0] * sides[:, 1],
        stated=np.concatenate([corners, sides], axis=1),
        lines=table[:, 1].astype(np.int64),
        sources=None if label_files is None else np.array(label_files, np.str_),
        counts=labels.counts,
        examples=labels.examples,
    )


@dataclass
class _Labels:
    """Rows of label files, gathered: image, line, class, xc, yc, w, h."""

    num_classes: int
    finite: bool
    strict: bool
    rows: list[tuple[float, ...]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def read(self, image: int, path: Path) -> None:
        """Add the rows of the label file of one image; none means no objects."""
        for where, fields in _lines(path):
            try:
                box = parse_row(fields, where, self.num_classes, self.finite)
            except DataError as error:
                if self.strict:
                    raise
                self.note(REFUSED, str(error))
                continue
            if len(fields) > 5:
                self.note(POLYGONS, where)
            self.rows.append((image, int(where.rpartition(":")[2]), *box))

    def note(self, what: str, where: str) -> None:
        """Count what was repaired or left out."""
        self.counts[what] += 1
        self.examples.setdefault(what, where)


def parse_row(
    fields: Sequence[str], where: str, num_classes: int, finite: bool
) -> tuple[float, float, float, float, float]:
    """Read one row: class, and the centre and sides of the box as shares.

    Args:
        fields: The words of the row.
        where: File and line, for messages.
        num_classes: Classes are numbered 0 to `num_classes` - 1.
        finite: Refuse NaN and infinite numbers.

    Raises:
        DataError: Wrong number of columns, no number, an unknown class, pixels for shares.
    """
    columns = len(fields)
    if columns < 5 or (columns > 5 and (columns < 7 or columns % 2 == 0)):
        raise DataError(f"{where}: {columns} columns, not the 5 of YOLO (class xc yc w h)")
    label = parse_integer(fields[0], where, "class")
    if not 0 <= label < num_classes:
        raise DataError(f"{where}: class {label} is none of 0 to {num_classes - 1}")
    values = [_share(text, where, finite) for text in fields[1:]]
    if columns > 5:
        xs, ys = values[0::2], values[1::2]
        values = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2]
        values += [max(xs) - min(xs), max(ys) - min(ys)]
    xc, yc, w, h = values
    return label, xc, yc, w, h


def _share(text: str, where: str, finite: bool) -> float:
    try:
        value = float(text) if "_" not in text else float("no number")  # Python reads 1_0 as 10
    except ValueError:
        raise DataError(f"{where}: {text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        if finite:
            raise DataError(f"{where}: {text[:40]!r} is not a finite number")
        return math.nan
    if value > LIMIT:
        raise DataError(
            f"{where}: {value:g} is not between 0 and 1: YOLO coordinates are normalised, no px"
        )
    return value


def label_path(image: Path) -> Path:
    """Where the labels of an image are: the last `images` becomes `labels`, the suffix `.txt`."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def label_file(image: Path) -> Path:
    """The label file of an image: where YOLO has it, else a text beside the image."""
    usual, beside = label_path(image), image.with_suffix(".txt")
    return beside if not usual.exists() and beside.exists() else usual


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield file and line, and the words, of each row that is not empty."""
    if not path.exists():
        return
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if fields:
            yield f"{path}:{number}", fields


def _names_to_write(paths: Sequence[Path], part: Part) -> list[str]:
    """Names of images below their directory; absolute where several could hold one of that name."""
    folders = part.folders
    return [
        path.relative_to(folders[0]).as_posix()
        if len(folders) == 1 and path.is_relative_to(folders[0])
        else str(path.absolute())
        for path in paths
    ]


def images_of(part: Part, missing: list[str] | None = None) -> list[Path]:
    """Return the images of the directories and lists of a split.

    Args:
        part: The files of the split.
        missing: Is given the entries of lists that are not there; None refuses them.

    Raises:
        DataError: A place that is neither a directory, a list nor an image.
    """
    images: list[Path] = []
    for place in part.images:
        if place.is_dir():
            images += walk_images(place)
        elif place.suffix.lower() == ".txt":
            images += _listed(place, part.root or place.parent, missing)
        elif is_image(place):
            images.append(place)
        else:
            raise DataError(f"{place}: neither a directory, a .txt list nor an image")
    return images


def _listed(path: Path, root: Path, missing: list[str] | None) -> list[Path]:
    """Return the images of a list.

    As Ultralytics has it, `./x` is relative to the list and anything else to the root; a name that
    is not found so is looked for as `ImageFinder` does.
    """
    finder = ImageFinder([path.parent, root])
    images = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        entry = line.strip()
        if not entry:
            continue
        image = path.parent / entry[2:] if entry.startswith("./") else root / entry
        found = image if is_file(image) else finder.find(entry)
        if found is not None:
            images.append(found)
        elif missing is not None:
            missing.append(str(image)[:300])
        else:
            raise DataError(
                f"{path}:{number}: no such image, here or below {path.parent}: {entry[:120]}"
            )
    return images


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    with ThreadPoolExecutor(max_workers=8) as pool:  # waiting for the disk, not for a core
        return list(pool.map(_size_or_none, paths, chunksize=64))


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except DataError:
        return None


def write(folder: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write a label file for each record, below `folder` as its image is below the image directory.

    Coordinates are written to the last digit. Ignored and crowd boxes are left out: YOLO would make
    them objects.

    Returns:
        What could not be held, counted.
    """
    lost: Counter[str] = Counter()
    for record in records:
        kept = record.select(is_object(record))
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
