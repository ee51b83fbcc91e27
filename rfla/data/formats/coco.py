"""COCO detection JSON: one file for each split.

`images`, `annotations` (bbox = x, y, w, h in px) and `categories`.

What goes round unharmed: ids of images, annotations and categories, `iscrowd`, `ignore`, `area`
where it is possible, quadrangles (in `segmentation`), and under `attributes` what only some formats
know. Masks are not kept: this is detection; where `bbox` is missing, the box round the polygons or
the mask is taken. A region without a class (VisDrone's ignored regions) has category -1, which
`categories` does not name: `rfla.metrics` knows it, other evaluators pass over it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import GROUP, LARGEST_SIDE, REFUSED, REGIONS, Annotations, join
from rfla.data.formats import coco_file
from rfla.data.formats.coco_columns import (
    Columns,
    attributes,
    columns_of,
    corners_of,
    lost_outlines,
)
from rfla.data.formats.coco_file import (
    REGIONS_BY_NAME,
    Content,
    File,
    FullFile,
    Image,
    category_names,
    class_table,
    empty_groups,
    image_ids,
    whole,
)
from rfla.data.formats.coco_ids import (
    UNKNOWN,
    category_ids,
    labels_of,
    places,
    rows_of,
    why_unknown,
)
from rfla.data.formats.images import (
    find_folders,
    image_folders,
    require_directory,
    root_of,
    split_of,
)
from rfla.data.formats.text import REPEAT, unique_whole
from rfla.data.record import NO_CLASS, Classes, Part
from rfla.errors import DataError, RflaError, shorten
from rfla.json_file import collector_at_rest

Used = TypeVar("Used")

OUTLINES = "polygons (other than of four corners) and masks left out, their boxes kept"
FROM_MASKS = "boxes made of polygons or masks, where the file gives no bbox"


@dataclass(frozen=True)
class Rules:
    """How a COCO file is to be read.

    Attributes:
        flags: Keys of an annotation that make it an ignored box where true.
        regions: Names of categories, in small letters, that mean "nothing is counted here".
        to_write: Read all that can be written back, and refuse a box or a size that is none;
            otherwise its numbers become NaN, or 0.
        strict: Refuse an annotation of an unknown image or category; otherwise leave it out and
            count it.
        needs_files: Refuse an image without a file name.
    """

    flags: tuple[str, ...] = ("ignore",)
    regions: tuple[str, ...] = REGIONS_BY_NAME
    to_write: bool = True
    strict: bool = True
    needs_files: bool = True


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
                f"source={source}: {first.name} and {file.name} are both '{split}'; "
                "give one as annotations=FILE"
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


classes_of = coco_file.classes_of


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the images of a split, in the order of the file.

    Args:
        part: The files of the split.
        classes: The class table; None: the categories of the files.
        to_write: As in `Rules`.
        strict: As in `Rules`.

    Raises:
        DataError: An entry that is malformed, an unknown category, an annotation without its image.
    """
    rules = Rules(to_write=to_write, strict=strict)
    with collector_at_rest():
        return join_files([read_file(path, classes, rules) for path in part.annotations])


def join_files(parts: Sequence[Annotations]) -> Annotations:
    """Join the files of one split; the ids of several files repeat and are dropped."""
    if len(parts) == 1:
        return parts[0]
    joined = join(parts, parts[0].name, renumber=True)
    if joined.ids is not None:
        joined.ids[:] = -1
    return joined


def read_file(path: Path, classes: Classes | None, rules: Rules) -> Annotations:
    """Read one file."""

    def use(content: Content) -> Annotations:
        return annotations(content, str(path), classes, rules)

    return use(coco_file.load(path, FullFile)) if rules.to_write else use_file(path, use)


def use_file(path: Path, use: Callable[[Content], Used]) -> Used:
    """Load a file and use it, without its polygons and masks if no box has to be made of them.

    Args:
        path: The file.
        use: What to do with its content.
    """
    try:
        return use(coco_file.load_plain(path))
    except (ValueError, RecursionError, MemoryError, RflaError):
        pass  # something is unusual or wrong: the slow way says what, as the file writes it
    return use(with_boxes(lambda kind: coco_file.load(path, kind)))


def with_boxes(load: Callable[[type[Any]], Any]) -> File | FullFile:
    """Load a file without its polygons and masks, unless a box has to be made of them.

    Args:
        load: Loads it as a `File` or a `FullFile`.
    """
    content: File = load(File)
    if all(entry.bbox is not None for entry in content.annotations or []):
        return content
    full: FullFile = load(FullFile)
    return full


def annotations(content: Content, where: str, classes: Classes | None, rules: Rules) -> Annotations:
    """Turn the content of a COCO file into flat arrays.

    Args:
        content: From `coco_file.load`.
        where: Its file, for messages.
        classes: The class table; None: the file's own categories.
        rules: How to read it.

    Raises:
        DataError: As in `read`.
    """
    notes = _Notes()
    names = category_names(content, where)
    table = class_table(names, rules.regions) if classes is None else classes
    notes.add(GROUP, where, len(empty_groups(content) - set(table.ids)))
    ids = image_ids(content, where)
    files, sizes = _images(content.images or [], where, rules)
    columns = columns_of(content.annotations or [], ("iscrowd", *rules.flags))
    columns, images, labels = _owners(columns, ids, names, table, where, rules, notes)
    stated = columns.boxes
    _check_boxes(columns, where, rules, notes)
    own_area = stated[:, 2] * stated[:, 3]
    flagged = [labels == NO_CLASS, *(columns.flags[flag] for flag in rules.flags)]
    crowd = columns.flags["iscrowd"] | (labels == NO_CLASS)
    # By image, and within an image as in the file.
    order = np.argsort(images, kind="stable")
    per_image = np.bincount(images, minlength=len(files))
    store = Annotations(
        name=where,
        names=tuple(table.names),
        category_ids=category_ids(names, table),
        paths=np.array(files, np.str_),
        image_ids=_id_array(ids),
        image_hw=sizes,
        box_start=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
        boxes=corners_of(stated).take(order, axis=0),
        labels=labels[order],
        ignore=np.logical_or.reduce(flagged)[order],
        crowd=crowd[order],
        area=np.where(np.isnan(columns.area), own_area, columns.area)[order],
        stated=stated.take(order, axis=0),
        own_ids=unique_whole(ids),
        counts=notes.counts,
        examples=notes.examples,
    )
    return _to_be_written(store, columns, order, rules) if rules.to_write else store


def _to_be_written(
    store: Annotations, columns: Columns, order: NDArray[np.int64], rules: Rules
) -> Annotations:
    """Add what can be written back: ids, attributes and the file of each image.

    Args:
        store: The images and boxes.
        columns: The annotations in the order of the file.
        order: (M,) their order in the store.
        rules: How they were read.
    """
    where = store.name
    if not store.own_ids:
        store.note(f"ids of images that {REPEAT}", where, len(store))
    keeps_ids = unique_whole(columns.ids)
    if not keeps_ids:
        store.note(f"ids of annotations that {REPEAT}", where, len(columns.ids))
    lost = lost_outlines(columns.entries)
    if lost:
        store.note(OUTLINES, f"{where}: annotations[{lost[0]}]", len(lost))
    own = columns.ids if keeps_ids else [-1] * len(columns.ids)
    more = attributes(columns.entries, columns.area, rules.flags)
    return replace(
        store,
        ids=np.array(own, np.int64)[order],
        attributes={name: values[order] for name, values in more.items()},
        sources=np.broadcast_to(np.array(where), len(store)),
    )


def _id_array(ids: list[int | str]) -> NDArray[Any]:
    """(N,) ids; as objects where numbers and texts are mixed, or a number is huge."""
    if len({type(number) for number in ids}) > 1:
        return np.array(ids, object)
    return np.array(ids) if ids else np.zeros(0, np.int64)


class _Notes:
    """What was repaired or left out, counted, with the first place of each."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.examples: dict[str, str] = {}

    def add(self, what: str, where: str, count: int) -> None:
        if count:
            self.counts[what] += count
            self.examples.setdefault(what, where)


def _images(
    entries: Sequence[Image], where: str, rules: Rules
) -> tuple[list[str], NDArray[np.int32]]:
    """File names and (N, 2) height and width of the images; 0 where none is stated."""
    files: list[str] = []
    sizes = np.zeros((len(entries), 2), np.int32)
    for row, entry in enumerate(entries):
        name = entry.file_name
        if not isinstance(name, str) or (rules.needs_files and not name.strip()):
            raise DataError(
                f"{where}: images[{row}]: file_name must be a text, not {shorten(name)}"
            )
        files.append(name)
        sizes[row] = _size(entry, f"{where}: images[{row}]", rules.to_write)
    return files, sizes


def _size(entry: Image, where: str, to_write: bool) -> tuple[int, int]:
    height, width = entry.height, entry.width
    plain = type(height) is int and type(width) is int
    if plain and 1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE:
        return height, width
    try:
        sides = [
            0 if value is None else whole(value, key, where)
            for key, value in (("height", height), ("width", width))
        ]
        if max(sides) > LARGEST_SIDE:
            raise DataError(f"{where}: {sides[1]} x {sides[0]} px is too large for an image")
    except DataError:
        if to_write:
            raise
        return 0, 0
    return (sides[0], sides[1]) if min(sides) >= 1 else (0, 0)


def _owners(
    columns: Columns,
    ids: Sequence[int | str],
    names: dict[int, str],
    table: Classes,
    where: str,
    rules: Rules,
    notes: _Notes,
) -> tuple[Columns, NDArray[np.int64], NDArray[np.int64]]:
    """The annotations with the row of the image and the label of each.

    Those of an unknown image or category are refused, or left out and counted.
    """
    images = places(columns.image_ids, rows_of(ids))
    labels = places(columns.category_ids, labels_of(names, table, rules.regions))
    unknown = np.flatnonzero((images == UNKNOWN) | (labels == UNKNOWN))
    if len(unknown):
        row = int(unknown[0])
        if rules.strict:
            no_image = bool(images[row] == UNKNOWN)
            place = f"{where}: annotations[{row}]"
            raise DataError(why_unknown(columns.entries[row], place, no_image, names, table))
        notes.add(REFUSED, f"{where}: annotation {shorten(columns.ids[row])}", len(unknown))
        known = np.flatnonzero((images != UNKNOWN) & (labels != UNKNOWN))
        columns, images, labels = columns.take(known), images[known], labels[known]
    if not rules.to_write:
        regions = np.flatnonzero(labels == NO_CLASS)
        if len(regions):
            notes.add(REGIONS, f"annotation {shorten(columns.ids[regions[0]])}", len(regions))
    if not rules.strict:
        _note_repeated_ids(columns.ids, where, notes)
    return columns, images, labels


def _note_repeated_ids(given: Sequence[Any], where: str, notes: _Notes) -> None:
    ids = Counter(identity for identity in given if isinstance(identity, int | str))
    repeated = sum(ids.values()) - len(ids)
    if repeated:
        first = ids.most_common(1)[0][0]
        what = "annotations with the id of another (other tools drop or mix them)"
        notes.add(what, f"{where}: annotation id {shorten(first)}", repeated)


def _check_boxes(columns: Columns, where: str, rules: Rules, notes: _Notes) -> None:
    """Count the boxes made of masks, and refuse what is no box where it is to be written back.

    Otherwise it stays NaN, which the index drops and counts.
    """
    if columns.made:
        notes.add(FROM_MASKS, f"{where}: annotations[{columns.made[0]}]", len(columns.made))
    if rules.to_write and not np.isfinite(columns.boxes).all():
        row = int(np.argmax(~np.isfinite(columns.boxes).all(axis=1)))
        given = columns.entries[row].bbox
        raise DataError(
            f"{where}: annotations[{row}]: bbox must be four finite numbers x, y, w, h, "
            f"not {shorten(given)}"
        )
