"""COCO detection JSON: `images`, `annotations` (bbox = x, y, w, h in px) and `categories` in one file for each split.

What goes round unharmed: ids of images, annotations and categories, `iscrowd`, `ignore`, `area`
where it is possible, quadrangles (in `segmentation`), and under `attributes` what only some formats
know. Masks are not kept: this is detection. A region without a class (VisDrone's ignored regions)
has category -1, which `categories` does not name: `rfla.metrics` knows it, other evaluators pass
over it.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.formats.images import (
    find_folders,
    image_folders,
    require_directory,
    root_of,
    split_of,
)
from rfla.data.formats.record import (
    NO_CLASS,
    REPEAT,
    Classes,
    ImageRecord,
    Part,
    make_record,
    read_text,
    unique_whole,
)
from rfla.errors import DataError

# Whole numbers, under `attributes` of an annotation.
CARRIED = ("truncation", "occlusion", "difficult", "category", "uncertain", "logo")
FLAGS = ("ignore",)
REGION_ID = (
    -1
)  # category id of a region without a class; 0 is read as one too where no category has it
Entry = Mapping[str, Any]


def find(source: Path) -> dict[str, Part]:
    """Find the splits: one JSON file.

    `annotations/*.json` or `*.json` with images beside or below; `{split}/*.json`.

    Raises:
        DataError: There is no JSON file, or two for one split.
    """
    if source.is_file():
        split = split_of(source.stem) or "train"
        return {split: Part((source,), image_folders(root_of(source), split))}
    try:
        files = annotation_files(require_directory(source))
    except DataError:
        return find_folders(source, ("annotations",), ("images",), ".json")
    parts: dict[str, Part] = {}
    for file in files:
        split = (
            (split_of(file.stem) or file.stem) if len(files) > 1 else split_of(file.stem) or "train"
        )
        if split in parts:
            first = parts[split].annotations[0]
            raise DataError(
                f"source={source}: {first.name} and {file.name} are both '{split}'; give one as annotations=FILE"
            )
        parts[split] = Part((file,), image_folders(source, split))
    return parts


def annotation_files(source: Path) -> list[Path]:
    """Return the JSON files of a directory.

    Raises:
        DataError: There is none.
    """
    for folder in (source / "annotations", source / "Annotations", source):
        files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if files:
            return files
    raise DataError(f"source={source}: no .json file, here or in annotations/")


def classes(parts: Iterable[Part]) -> Classes:
    """Return the categories of the files, ascending by id. They must agree where ids are shared.

    Raises:
        DataError: Files disagree, or one has no categories.
    """
    table: dict[int, str] = {}
    for part in parts:
        for path in part.annotations:
            for number, name in category_names(load(path), path).items():
                if table.setdefault(number, name) != name:
                    raise DataError(
                        f"{path}: category {number} is '{name}' here but '{table[number]}' in another split"
                    )
    ids = sorted(table)
    return Classes([table[number] for number in ids], ids)


def category_names(content: Entry, path: Path) -> dict[int, str]:
    """Return the names of a file's categories by id.

    Raises:
        DataError: None, or one without a whole id and a name, or an id or name twice.
    """
    names: dict[int, str] = {}
    for row, entry in enumerate(content["categories"]):
        where = f"{path}: categories[{row}]"
        number = whole(entry, "id", where)
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where} has no name")
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DataError(f"{where}: name {name!r:.60} is no text: half of a surrogate pair")
        if number in names or name in names.values():
            raise DataError(f"{where}: id {number} or name '{name}' is used twice")
        names[number] = name
    if not names:
        raise DataError(f"{path}: no categories")
    return names


def load(path: Path) -> dict[str, Any]:
    """Read a COCO file and check its outline.

    Raises:
        DataError: With the line where it stops being JSON; a list that is missing.
    """
    content = load_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: not a COCO detection file: no list '{key}'")
        wrong = next(
            (row for row, entry in enumerate(content[key]) if not isinstance(entry, dict)), None
        )
        if wrong is not None:
            raise DataError(f"{path}: {key}[{wrong}] is no object")
    return dict(content)


def load_json(path: Path) -> Any:
    """Read any JSON file.

    Raises:
        DataError: With the line where it stops being JSON; a key that an object has twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"{path}: an object has the key {twice!r:.60} twice")
        return entry

    try:
        return json.loads(read_text(path), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: not usable JSON ({error})") from None


def read(part: Part, classes: Classes) -> Iterator[ImageRecord]:
    """Read the images of a split, in the order of the file.

    Raises:
        DataError: An entry that is malformed, an unknown category, an annotation without its image.
    """
    for path in part.annotations:
        for record in records(load(path), path, classes):
            yield record if len(part.annotations) == 1 else without_ids(record)


def without_ids(record: ImageRecord) -> ImageRecord:
    """Return a record whose ids are dropped: those of several files of one split repeat."""
    record.image_id = None
    record.ids[:] = -1
    return record


def records(
    content: Entry,
    path: Path,
    classes: Classes,
    flags: Sequence[str] = FLAGS,
    regions: frozenset[int] = frozenset(),
) -> Iterator[ImageRecord]:
    """Turn a loaded COCO file into records.

    Args:
        content: From `load`.
        path: Its file, for messages.
        classes: The class table.
        flags: Keys of an annotation that make it an ignored box when true.
        regions: Category ids that mean "nothing is counted here" instead of a class.
    """
    ids = [
        _identity(entry.get("id"), f"{path}: images[{row}]")
        for row, entry in enumerate(content["images"])
    ]
    _refuse_repeated(ids, path)
    rows_of: dict[int | str, list[int]] = {identity: [] for identity in ids}
    annotations = content["annotations"]
    for row, entry in enumerate(annotations):
        key = _identity(entry.get("image_id"), f"{path}: annotations[{row}]", "image_id")
        if key not in rows_of:
            raise DataError(
                f"{path}: annotations[{row}] belongs to image {key!r}, which is not listed"
            )
        rows_of[key].append(row)
    keep_ids = unique_whole([entry.get("id") for entry in annotations])
    keep_image_ids = unique_whole(ids)
    renumbered = Counter[str]()
    for what, kept, count in (
        ("annotations", keep_ids, len(annotations)),
        ("images", keep_image_ids, len(ids)),
    ):
        if not kept:
            renumbered[f"ids of {what} that {REPEAT}"] = count
    for row, entry in enumerate(content["images"]):
        parsed = [
            _annotation(
                annotations[index], f"{path}: annotations[{index}]", classes, flags, regions
            )
            for index in rows_of[ids[row]]
        ]
        record = _image(entry, f"{path}: images[{row}]", path, parsed, keep_ids)
        record.image_id = int(ids[row]) if keep_image_ids else None
        if row == 0:
            record.repaired = renumbered
        yield record


def _refuse_repeated(ids: Sequence[Any], path: Path) -> None:
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{path}: image id {twice!r} is used twice")


def _identity(value: Any, where: str, name: str = "id") -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {name} must be a whole number or a text, not {value!r:.60}")
    return value


def whole(entry: Entry, key: str, where: str) -> int:
    """Return a whole number of an entry.

    Raises:
        DataError: It is none.
    """
    value = entry.get(key)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value != int(value)
    ):
        raise DataError(f"{where}: {key} must be a whole number, not {value!r:.60}")
    if abs(value) >= 2**63:
        raise DataError(f"{where}: {key} {value!r:.60} is too large")
    return int(value)


def _annotation(
    entry: Entry, where: str, classes: Classes, flags: Sequence[str], regions: frozenset[int]
) -> dict[str, Any]:
    number = whole(entry, "category_id", where)
    region = number in regions or (number in (REGION_ID, 0) and number not in classes.ids)
    attributes = entry.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    x, y, w, h = four_numbers(entry.get("bbox"), where)
    return {
        "box": (x, y, x + w, y + h),
        "label": NO_CLASS if region else classes.label_of_id(number, where),
        "ignore": region or any(bool(entry.get(flag)) for flag in flags),
        "crowd": region or bool(entry.get("iscrowd")),
        "id": entry.get("id"),
        "area": entry.get("area"),
        "polygon": _quadrangle(entry.get("segmentation")),
        **{flag: 1 for flag in flags if flag in CARRIED and entry.get(flag)},
        **{
            name: attributes[name]
            for name in CARRIED
            if type(attributes.get(name)) is int and abs(attributes[name]) < 2**63
        },
    }


def four_numbers(
    value: Any, where: str, what: str = "bbox", order: str = "x, y, w, h"
) -> tuple[float, ...]:
    """Return the four numbers of a `bbox`, or of what is called `what`.

    Raises:
        DataError: It is no list of four finite numbers.
    """
    good = isinstance(value, list) and len(value) == 4
    if not good or any(
        isinstance(v, bool) or not isinstance(v, int | float) or abs(v) > 1e15 or v != v
        for v in value
    ):
        raise DataError(f"{where}: {what} must be four finite numbers {order}, not {value!r:.80}")
    return float(value[0]), float(value[1]), float(value[2]), float(value[3])


def _quadrangle(value: Any) -> list[float] | None:
    if (
        not isinstance(value, list)
        or len(value) != 1
        or not isinstance(value[0], list)
        or len(value[0]) != 8
    ):
        return None
    if not all(isinstance(number, int | float) and abs(number) < 1e15 for number in value[0]):
        return None
    return [float(number) for number in value[0]]


def _image(
    entry: Entry, where: str, path: Path, boxes: list[dict[str, Any]], keep_ids: bool
) -> ImageRecord:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: file_name must be a text, not {name!r:.60}")
    size = tuple(
        max(whole(entry, key, where), 0) if entry.get(key) is not None else 0
        for key in ("width", "height")
    )
    return make_record(
        name,
        str(path),
        [box["box"] for box in boxes],
        [box["label"] for box in boxes],
        ignore=[box["ignore"] for box in boxes],
        crowd=[box["crowd"] for box in boxes],
        ids=[box["id"] if keep_ids else -1 for box in boxes],
        size=(size[0], size[1]),
        attributes=_columns(boxes),
    )


def _columns(boxes: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the attribute columns; `area` is NaN where the file states none."""
    areas = [box["area"] if type(box["area"]) in (int, float) else math.nan for box in boxes]
    columns: dict[str, NDArray[Any]] = {"area": np.array(areas, np.float64)}
    if any(box["polygon"] for box in boxes):
        columns["polygon"] = np.array(
            [box["polygon"] or [math.nan] * 8 for box in boxes], np.float64
        )
    for name in CARRIED:
        if any(name in box for box in boxes):
            columns[name] = np.array([box.get(name, 0) for box in boxes], np.int64)
    return columns
