"""VisDrone2019-DET: one text file for each image.

Rows are `x,y,w,h,score,category,truncation,occlusion`, in px.

Category 0 is a region in which nothing is counted, 1 to 10 are the classes, 11 is "others". Score 0
says that the evaluation leaves the row out. So 0, 11 and every row of score 0 become ignored
regions; those of category 0 and 11 hold for every class. Some published files end rows with a
comma. (VisDrone-DET toolkit, README.)
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rfla.data.formats.images import find_folders
from rfla.data.formats.left_out import NOTHING, LeftOut
from rfla.data.formats.text import as_text, parse_numbers, read_text, reader_of
from rfla.data.record import NO_CLASS, Classes, ImageRecord, Part, make_record
from rfla.errors import DataError

NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
OTHERS = 11
COLUMNS = "x,y,w,h,score,category,truncation,occlusion"


def find(source: Path) -> dict[str, Part]:
    """Find the splits: `VisDrone2019-DET-train/{images,annotations}`, or one such directory."""
    return find_folders(source, ("annotations",), ("images",), ".txt")


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the ten classes."""
    return Classes(NAMES)


def read_file(path: Path, classes: Classes, left_out: LeftOut = NOTHING) -> ImageRecord:
    """Read one file; the image has its stem. Boxes of negative or no size are kept as they are.

    Args:
        path: The file.
        classes: The class table.
        left_out: Is given the rows that are not 8 finite numbers, or whose category or flag is
            none.

    Raises:
        DataError: With file and line: a text that is none, or what `left_out` refuses.
    """
    rows: list[list[float]] = []
    labels: list[int] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text, where = line.strip().rstrip(","), f"{path}:{number}"
        if not text:
            continue
        try:
            row = _row(text, where)
            value = int(row[5])
            label = classes.label_of_id(value, where) if 0 < value < OTHERS else NO_CLASS
        except DataError as error:
            left_out.refuse(error)
            continue
        rows.append(row)
        labels.append(label)
        lines.append(number)
    values = np.array(rows, np.float64).reshape(-1, 8)
    category = values[:, 5].astype(np.int64)
    ignore = (values[:, 4] == 0) | (np.array(labels, np.int64) == NO_CLASS)
    boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4]], axis=1)
    attributes = {
        "category": category,
        "truncation": values[:, 6].astype(np.int64),
        "occlusion": values[:, 7].astype(np.int64),
    }
    return make_record(
        path.stem,
        str(path),
        boxes.tolist(),
        labels,
        ignore=ignore,
        crowd=ignore,
        lines=lines,
        attributes=attributes,
    )


read = reader_of(read_file, classes_of)


def _row(text: str, where: str) -> list[float]:
    fields = text.split(",")
    if len(fields) != 8:
        raise DataError(f"{where}: {len(fields)} columns, not the 8 of VisDrone ({COLUMNS})")
    values = parse_numbers(fields, where)
    if values[5] not in range(OTHERS + 1):
        raise DataError(f"{where}: category {fields[5].strip()[:40]} is none of 0 to {OTHERS}")
    if (
        values[4] not in (0, 1)
        or values[6] not in range(-1, 100)
        or values[7] not in range(-1, 100)
    ):
        raise DataError(
            f"{where}: score must be 0 or 1, truncation and occlusion whole numbers, "
            f"not {text[:60]}"
        )
    return values


def write(folder: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write `{stem}.txt` for each record. All is held but ids.

    Returns:
        What could not be held, counted.

    Raises:
        DataError: A class that is none of VisDrone's.
    """
    categories = classes.ids_in({name: number for number, name in enumerate(NAMES, 1)}, "visdrone")
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        text = "".join(_line(record, row, categories) for row in range(len(record)))
        (folder / f"{Path(record.file_name).stem}.txt").write_text(text, encoding="utf-8")
    return Counter()


def _line(record: ImageRecord, row: int, categories: Sequence[int]) -> str:
    x1, y1, x2, y2 = record.boxes[row].tolist()
    label = int(record.labels[row])
    category = categories[label] if label != NO_CLASS else _attribute(record, "category", row)
    score = 0 if record.ignore[row] or record.crowd[row] or label == NO_CLASS else 1
    flags = [_attribute(record, "truncation", row), _attribute(record, "occlusion", row)]
    return (
        ",".join([*map(as_text, (x1, y1, x2 - x1, y2 - y1)), *map(str, (score, category, *flags))])
        + "\n"
    )


def _attribute(record: ImageRecord, name: str, row: int) -> int:
    return int(record.attributes[name][row]) if name in record.attributes else 0
