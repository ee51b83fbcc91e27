"""Pascal VOC: one XML file for each image.

It has `object/name` and `object/bndbox/{xmin,ymin,xmax,ymax}`, in px.

Coordinates are taken as the edges of the box, as LabelImg, Roboflow and DeepForest write them. (The
VOC challenge itself counted pixels from 1; nothing in a file tells the two apart.) `difficult`
objects become ignored boxes. The image is the one of the file's own stem; where there is none, the
one that `filename` states.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from rfla.data.annotations import LARGEST_SIDE
from rfla.data.formats.images import clean_name, find_folders, is_file, require_directory
from rfla.data.formats.left_out import NOTHING, LeftOut
from rfla.data.formats.text import (
    as_text,
    names_of,
    parse_flag,
    parse_integer,
    parse_numbers,
    read_text,
    reader_of,
)
from rfla.data.formats.xml_file import parse_xml
from rfla.data.record import NO_CLASS, Classes, ImageRecord, Part, make_record
from rfla.errors import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"difficult": "difficult", "truncated": "truncation", "occluded": "occlusion"}

Texts = dict[str, tuple[str, int]]  # text and line of an element by its path, as "size/width"


def find(source: Path) -> dict[str, Part]:
    """Find the splits: the lists of `ImageSets/Main` with `Annotations` + `JPEGImages`.

    Else as in `find_folders`.
    """
    lists = sorted((require_directory(source) / "ImageSets" / "Main").glob("*.txt"))
    lists = [path for path in lists if path.stem in ("train", "val", "trainval", "test")]
    if not lists:
        return find_folders(
            source, ("Annotations", "annotations"), ("JPEGImages", "images"), ".xml"
        )
    images = tuple(folder for folder in (source / "JPEGImages", source) if folder.is_dir())
    return {path.stem: Part(_listed(path, source / "Annotations"), images) for path in lists}


def _listed(path: Path, folder: Path) -> tuple[Path, ...]:
    files = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            files.append(folder / f"{line.strip()}.xml")
            if not is_file(files[-1]):
                raise DataError(f"{path}:{number}: {files[-1]} does not exist")
    return tuple(files)


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the class names of all files, sorted."""
    return Classes(
        sorted(names_of([path for part in parts for path in part.annotations], read_file))
    )


def read_file(path: Path, classes: Classes, left_out: LeftOut = NOTHING) -> ImageRecord:
    """Read one file.

    Args:
        path: The file.
        classes: The class table.
        left_out: Is given the objects whose box is not four finite numbers, or whose class or flag
            is none.

    Raises:
        DataError: With file and line: not XML, or what `left_out` refuses.
    """
    head, objects = parse(path)
    boxes, labels, lines = [], [], []
    flags: dict[str, list[int]] = {name: [] for name in FLAGS.values()}
    for texts, line in objects:
        try:
            box, label, own_flags = _read_object(texts, line, path, classes)
        except DataError as error:
            left_out.refuse(error)
            continue
        boxes.append(box)
        labels.append(label)
        lines.append(line)
        for column, flag in own_flags.items():
            flags[column].append(flag)
    difficult = np.array(flags["difficult"], np.int64)
    width, height = (_side(head, side, path) for side in ("size/width", "size/height"))
    stated = head.get("filename", ("", 0))[0] or path.stem
    # Files are copied and renamed together; what is stated inside is often left as it was.
    renamed = clean_name(stated).stem != path.stem
    record = make_record(
        path.stem if renamed else stated,
        str(path),
        boxes,
        labels,
        ignore=difficult > 0,
        crowd=difficult > 0,
        lines=lines,
        size=(width, height),
        attributes={column: np.array(values, np.int64) for column, values in flags.items()},
    )
    record.other_name = stated if renamed else ""
    return record


read = reader_of(read_file, classes_of)


def _read_object(
    texts: Texts, line: int, path: Path, classes: Classes
) -> tuple[list[float], int, dict[str, int]]:
    """Read the box, the label and the flags of one object, which begins at `line`."""
    box = [_number(texts, f"bndbox/{corner}", path, line) for corner in CORNERS]
    flags = {}
    for tag, column in FLAGS.items():
        text, at = texts.get(tag, ("0", line))
        flags[column] = parse_flag(text, f"{path}:{at}", tag)
    name, at = texts.get("name", ("", line))
    label = classes.label(name, f"{path}:{at}") if name else _missing("name", f"{path}:{line}")
    return box, label, flags


def _number(texts: Texts, key: str, path: Path, line: int) -> float:
    if key not in texts:
        _missing(key, f"{path}:{line}")
    text, at = texts[key]
    return parse_numbers([text], f"{path}:{at}")[0]


def _side(head: Texts, key: str, path: Path) -> int:
    text, line = head.get(key, ("0", 0))
    return min(max(parse_integer(text or "0", f"{path}:{line}", key), 0), LARGEST_SIDE)


def _missing(key: str, where: str) -> int:
    raise DataError(f"{where}: this object has no {key}")


def parse(path: Path) -> tuple[Texts, list[tuple[Texts, int]]]:
    """Read the texts of a file with their lines.

    Returns:
        The texts outside objects by path below the root, and for each object its texts and its
        line.

    Raises:
        DataError: With the line, where it stops being XML; an entity declaration; no `annotation`
            root.
    """
    reader = _Reader(path)
    parse_xml(path, reader)
    return reader.head, reader.objects


class _Reader:
    """Handlers of the parser: gather texts by path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head: Texts = {}
        self.objects: list[tuple[Texts, int]] = []
        self._stack: list[str] = []
        self._pieces: list[str] = []
        self._line = 0

    def start(self, tag: str, _: Mapping[str, str], line: int) -> None:
        if not self._stack and tag != "annotation":
            raise DataError(
                f"{self.path}:{line}: not a Pascal VOC file (its root is <{tag[:40]}>, "
                "not <annotation>)"
            )
        self._stack.append(tag)
        self._pieces, self._line = [], line
        if self._stack[1:] == ["object"]:
            self.objects.append(({}, line))

    def text(self, piece: str) -> None:
        self._pieces.append(piece)

    def end(self) -> None:
        in_object = self._stack[1:2] == ["object"]
        texts = self.objects[-1][0] if in_object else self.head
        texts.setdefault(
            "/".join(self._stack[2 if in_object else 1 :]),
            ("".join(self._pieces).strip(), self._line),
        )
        self._stack.pop()
        self._pieces = []


def write(folder: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write `{stem}.xml` for each record. Regions without a class, and ids, are not held.

    Returns:
        What could not be held, counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lost: Counter[str] = Counter()
    for record in records:
        kept = record.select(record.labels != NO_CLASS)
        if len(kept) < len(record):
            lost["ignored regions without a class (VOC cannot hold them)"] += len(record) - len(
                kept
            )
        (folder / f"{Path(record.file_name).stem}.xml").write_text(
            _document(kept, classes), encoding="utf-8"
        )
    return lost


def _document(record: ImageRecord, classes: Classes) -> str:
    objects = "".join(_object(record, row, classes) for row in range(len(record)))
    size = f"<width>{record.width}</width><height>{record.height}</height><depth>3</depth>"
    return (
        f"<annotation>\n  <filename>{escape(record.file_name)}</filename>\n  <size>{size}</size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(record: ImageRecord, row: int, classes: Classes) -> str:
    values = {
        tag: int(record.attributes[c][row]) for tag, c in FLAGS.items() if c in record.attributes
    }
    values["difficult"] = max(
        values.get("difficult", 0), int(record.ignore[row] or record.crowd[row])
    )
    name = escape(classes.names[record.labels[row]])
    flags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items())
    corners = zip(CORNERS, record.boxes[row].tolist(), strict=True)
    box = "".join(f"<{tag}>{as_text(value)}</{tag}>" for tag, value in corners)
    return f"  <object>\n    <name>{name}</name>{flags}\n    <bndbox>{box}</bndbox>\n  </object>\n"
