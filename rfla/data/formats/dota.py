"""DOTA 1.0, 1.5, 2.0: one text file for each image.

Rows are `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`, in px.

Up to two head lines state `imagesource:` and `gsd:`. A polygon becomes the tight box round it and
is kept beside it. Difficult objects (1, and 2 of the devkit's tiles) become ignored boxes.
(CAPTAIN-WHU/DOTA_devkit.)
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rfla.data.formats.images import find_folders
from rfla.data.formats.left_out import NOTHING, LeftOut
from rfla.data.formats.text import (
    as_text,
    names_of,
    parse_integer,
    parse_numbers,
    read_text,
    reader_of,
    tight_boxes,
)
from rfla.data.record import NO_CLASS, Classes, ImageRecord, Part, make_record
from rfla.errors import DataError

# Version 1.0 has the first 15, version 1.5 the first 16, version 2.0 all.
NAMES = (
    *(
        "plane",
        "baseball-diamond",
        "bridge",
        "ground-track-field",
        "small-vehicle",
        "large-vehicle",
        "ship",
    ),
    *(
        "tennis-court",
        "basketball-court",
        "storage-tank",
        "soccer-ball-field",
        "roundabout",
        "harbor",
    ),
    *("swimming-pool", "helicopter", "container-crane", "airport", "helipad"),
)
LABEL_FOLDERS = (
    "labelTxt-v2.0",
    "labelTxt-v1.5",
    "labelTxt-v1.0",
    "labelTxt",
    "annfiles",
    "annotations",
)
HEAD = ("imagesource:", "gsd:", "acquisition dates:")


def find(source: Path) -> dict[str, Part]:
    """Find the splits: `train/{images,labelTxt}`, or `labelTxt` + `images`.

    Where several versions of labels are there, the newest.
    """
    return find_folders(source, LABEL_FOLDERS, ("images",), ".txt")


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return DOTA's table of the version that has the classes of the files, else those, sorted."""
    names = names_of([path for part in parts for path in part.annotations], read_file)
    for count in (15, 16, 18):
        if set(names) <= set(NAMES[:count]):
            return Classes(NAMES[:count])
    return Classes(sorted(names))


def read_file(path: Path, classes: Classes, left_out: LeftOut = NOTHING) -> ImageRecord:
    """Read one file; the image has its stem.

    Args:
        path: The file.
        classes: The class table.
        left_out: Is given the rows that are not 8 finite numbers, a class and a flag.

    Raises:
        DataError: With file and line: a text that is none, or what `left_out` refuses.
    """
    polygons: list[list[float]] = []
    labels: list[int] = []
    difficult: list[int] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if not fields or line.lower().startswith(HEAD):
            continue
        try:
            corners, label, flag = _row(fields, classes, f"{path}:{number}")
        except DataError as error:
            left_out.refuse(error)
            continue
        polygons.append(corners)
        labels.append(label)
        difficult.append(flag)
        lines.append(number)
    polygon = np.array(polygons, np.float64).reshape(-1, 8)
    flags = np.array(difficult, np.int64)
    return make_record(
        path.stem,
        str(path),
        tight_boxes(polygon).tolist(),
        labels,
        ignore=flags > 0,
        crowd=flags > 0,
        lines=lines,
        attributes={"polygon": polygon, "difficult": flags},
    )


read = reader_of(read_file, classes_of)


def _row(fields: list[str], classes: Classes, where: str) -> tuple[list[float], int, int]:
    """Read the corners, the label and the difficulty of one object."""
    if len(fields) not in (9, 10):
        raise DataError(
            f"{where}: {len(fields)} columns, not the 10 of DOTA "
            "(x1 y1 x2 y2 x3 y3 x4 y4 class difficult)"
        )
    corners = parse_numbers(fields[:8], where)
    flag = _flag(fields[9], where) if len(fields) == 10 else 0
    return corners, classes.label(fields[8], where), flag


def _flag(text: str, where: str) -> int:
    value = parse_integer(text, where, "difficult")
    if value not in (0, 1, 2):
        raise DataError(f"{where}: difficult must be 0, 1 or 2, not {text[:40]}")
    return value


def write(folder: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write `{stem}.txt` for each record: the polygon, else the corners of the box.

    Spaces in class names become `-`: the format cannot hold them. Regions without a class and ids
    are not held.

    Returns:
        What could not be held, counted.

    Raises:
        DataError: Two classes would become one.
    """
    words: dict[str, str] = {}
    for name in classes.names:
        other = words.setdefault(_as_word(name), name)
        if other != name:
            raise DataError(
                f"classes {other!r} and {name!r} would both be {_as_word(name)!r}: DOTA holds no "
                "spaces in names; rename one of them (names=)"
            )
    folder.mkdir(parents=True, exist_ok=True)
    lost: Counter[str] = Counter()
    for record in records:
        kept = record.select(record.labels != NO_CLASS)
        if len(kept) < len(record):
            lost["ignored regions without a class (DOTA cannot hold them)"] += len(record) - len(
                kept
            )
        text = "".join(_line(kept, row, classes) for row in range(len(kept)))
        (folder / f"{Path(record.file_name).stem}.txt").write_text(text, encoding="utf-8")
    return lost


def _as_word(name: str) -> str:
    return "-".join(name.split())


def _line(record: ImageRecord, row: int, classes: Classes) -> str:
    x1, y1, x2, y2 = record.boxes[row].tolist()
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]
    if "polygon" in record.attributes and np.isfinite(record.attributes["polygon"][row]).all():
        corners = record.attributes["polygon"][row].tolist()
    difficult = int(record.ignore[row] or record.crowd[row])
    if "difficult" in record.attributes:
        difficult = max(difficult, int(record.attributes["difficult"][row]))
    name = _as_word(classes.names[record.labels[row]])
    return f"{' '.join(map(as_text, corners))} {name} {difficult}\n"
