"""A COCO file as it is: its entries with the keys that are wanted of them, checked in outline."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from rfla.data.record import Classes, Part
from rfla.errors import DataError, printable, shorten
from rfla.json_file import convert_json, parse_json, read_json_bytes, refuse_repeated_keys

NAME = "a COCO detection file"
REGIONS_BY_NAME = ("ignored regions", "ignored")


class Image(msgspec.Struct, gc=False):
    """An entry of `images`."""

    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None
    corner: Any = None


class Annotation(msgspec.Struct, gc=False):
    """What training and evaluation need of an entry of `annotations`."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    uncertain: Any = None


class FullAnnotation(Annotation, gc=False):
    """All of an entry of `annotations` that can be written back, or that a box can be made of."""

    logo: Any = None
    segmentation: Any = None
    attributes: Any = None


class PlainAnnotation(msgspec.Struct, gc=False):
    """An entry of `annotations` that holds numbers alone, as most tools write it."""

    image_id: float
    category_id: float
    bbox: tuple[float, float, float, float]
    id: float = math.nan
    area: float = math.nan
    iscrowd: float = 0.0
    ignore: float = 0.0
    uncertain: float = 0.0


class Category(msgspec.Struct, gc=False):
    """An entry of `categories`."""

    id: Any = None
    name: Any = None
    supercategory: Any = None


class File(msgspec.Struct):
    """A COCO file; a list that is missing is None."""

    images: list[Image] | None = None
    annotations: list[Annotation] | None = None
    categories: list[Category] | None = None


class PlainFile(msgspec.Struct):
    """A COCO file whose annotations are plain."""

    images: list[Image]
    annotations: list[PlainAnnotation]
    categories: list[Category]


class FullFile(msgspec.Struct):
    """A COCO file with all that can be written back."""

    images: list[Image] | None = None
    annotations: list[FullAnnotation] | None = None
    categories: list[Category] | None = None


AnyFile = TypeVar("AnyFile", File, FullFile)
AnyAnnotation = PlainAnnotation | Annotation
Content = PlainFile | File | FullFile


def load(path: Path, kind: type[AnyFile]) -> AnyFile:
    """Read a COCO file.

    Raises:
        DataError: With the line where it stops being JSON; a list that is missing; a key that an
            object has twice.
    """
    data = read_json_bytes(path)
    content: AnyFile = parse_json(data, str(path), kind, what=NAME)
    _refuse_keys_given_twice(data, content, str(path))
    return require_lists(content, str(path))


def load_plain(path: Path) -> PlainFile:
    """Read a COCO file whose annotations are plain.

    Raises:
        ValueError: It is none, or no usable JSON; `load` says which.
        RecursionError: It is nested too deep.
        DataError: It cannot be read, or an object has a key twice.
    """
    data = read_json_bytes(path)
    content = msgspec.json.decode(data, type=PlainFile)
    if not _keys_end_as_expected(data, len(content.annotations)):
        _refuse_keys_given_twice(data, content, str(path))
    return content


def _refuse_keys_given_twice(data: bytes, content: Content, where: str) -> None:
    keys = [(b'"bbox"', len(content.annotations or []))]
    keys += [(b'"images"', 1), (b'"annotations"', 1), (b'"categories"', 1)]
    if any(data.count(key) > count for key, count in keys):
        refuse_repeated_keys(data, where)  # rare: this check alone takes longer than reading


def _keys_end_as_expected(data: bytes, boxes: int) -> bool:
    """Tell at a glance that no `bbox` and none of the three lists, which are all there, is twice.

    It counts no more than the keys that end as `bbox` does, and those that end as the lists do.
    """
    text = np.frombuffer(data, np.uint8)
    colons = np.flatnonzero(text[2:] == ord(":"))
    if (text[1:][colons] != ord('"')).any():
        return False
    last = text[colons]
    boxes_given, lists_given = (np.count_nonzero(last == ord(letter)) for letter in "xs")
    return bool(boxes_given <= boxes and lists_given <= 3)


def from_memory(content: Any, where: str, kind: type[AnyFile]) -> AnyFile:
    """Take the wanted keys of a COCO file that was parsed already.

    Raises:
        DataError: A list or an entry that is missing or none.
    """
    taken: AnyFile = convert_json(content, where, kind, what=NAME)
    return require_lists(taken, where)


def require_lists(content: AnyFile, where: str) -> AnyFile:
    """Return the file.

    Raises:
        DataError: One of its three lists is missing.
    """
    for key in ("images", "annotations", "categories"):
        if getattr(content, key) is None:
            raise DataError(f"{where}: not {NAME}: no list '{key}'")
    return content


def classes_of(parts: Iterable[Part], regions: Sequence[str] = REGIONS_BY_NAME) -> Classes:
    """Return the categories of the files, ascending by id. They must agree where ids are shared.

    Args:
        parts: The splits.
        regions: Names of categories, in small letters, that are no class.

    Raises:
        DataError: Files disagree, or one has no categories.
    """
    table: dict[int, str] = {}
    used: set[Any] = set()
    roots: set[int] = set()
    for path in [path for part in parts for path in part.annotations]:
        content = load(path, File)
        used |= used_categories(content)
        roots |= root_categories(content)
        for number, name in category_names(content, str(path)).items():
            if table.setdefault(number, name) != name:
                raise DataError(
                    f"{path}: category {number} is '{name}' here "
                    f"but '{table[number]}' in another split"
                )
    return class_table(
        {number: name for number, name in table.items() if number not in roots - used}, regions
    )


def class_table(names: Mapping[int, str], regions: Sequence[str] = REGIONS_BY_NAME) -> Classes:
    """Return the classes of a table of categories, ascending by id."""
    ids = sorted(number for number, name in names.items() if not is_region(name, regions))
    return Classes([names[number] for number in ids], ids)


def is_region(name: str, regions: Sequence[str]) -> bool:
    """Tell whether a category means "nothing is counted here", as VisDrone's `ignored-regions`."""
    return name.lower().replace("-", " ").replace("_", " ") in regions


def used_categories(content: Content) -> set[Any]:
    """Return the category ids that annotations have."""
    given = [entry.category_id for entry in content.annotations or []]
    with contextlib.suppress(TypeError):  # one is a list or a dict, which is no id
        given = list(set(given))
    return {number for value in given if (number := plain_id(value)) is not None}


def root_categories(content: Content) -> set[int]:
    """Return the ids of categories that only group others, as in exports of Roboflow.

    Such a root names no group of its own (`supercategory` is "none") and is the `supercategory` of
    all other categories.
    """
    categories = content.categories or []
    groups = Counter(one.supercategory for one in categories if isinstance(one.supercategory, str))
    roots = set()
    for entry in categories:
        alone = entry.supercategory in (None, "none", "")
        others = len(categories) - 1
        if not alone or not others or not isinstance(entry.name, str):
            continue
        if groups[entry.name] - (entry.supercategory == entry.name) == others:
            number = plain_id(entry.id)
            roots |= {number} if isinstance(number, int) else set()
    return roots


def empty_groups(content: Content) -> set[int]:
    """Return the ids of categories that only group others and have no box: they are no classes."""
    roots = root_categories(content)
    return roots - used_categories(content) if roots else roots


def category_names(content: Content, where: str) -> dict[int, str]:
    """Return the names of a file's categories by id.

    Raises:
        DataError: None, or one without a whole id and a name, or an id or name twice.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    passed_over = empty_groups(content)
    for row, entry in enumerate(content.categories or []):
        place = f"{where}: categories[{row}]"
        number = whole(entry.id, "id", place)
        if number in passed_over:
            continue
        name = str(entry.name) if type(entry.name) in (int, float) else entry.name
        if not isinstance(name, str) or not name:
            raise DataError(f"{place} has no name")
        name = printable(name, keep="")  # as in the class table
        if number in names or name in taken:
            raise DataError(f"{place}: id {number} or name '{name}' is used twice")
        taken.add(name)
        names[number] = name
    if not names:
        raise DataError(f"{where}: no categories")
    return names


def image_ids(content: Content, where: str) -> list[int | str]:
    """Return the id of each image.

    Raises:
        DataError: An id that is no whole number or text, or is used twice.
    """
    ids: list[int | str] = []
    for row, entry in enumerate(content.images or []):
        plain = plain_id(entry.id)
        if plain is None:
            raise DataError(
                f"{where}: images[{row}]: id must be a whole number or a text, not {entry.id!r:.60}"
            )
        ids.append(plain)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{where}: image id {twice!r} is used twice")
    return ids


def plain_id(value: Any) -> int | str | None:
    """Return an id as a number or a text, 7 for the 7.0 of pandas; None for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def whole(value: Any, key: str, where: str) -> int:
    """Return a whole number of an entry; 7.0 and "7" are 7.

    Raises:
        DataError: It is none.
    """
    plain = plain_id(value)
    if isinstance(plain, str) and plain.strip().isascii() and plain.strip().isdecimal():
        plain = int(plain) if len(plain) < 20 else 2**63
    if not isinstance(plain, int):
        raise DataError(f"{where}: {key} must be a whole number, not {value!r:.60}")
    if abs(plain) >= 2**63:
        raise DataError(f"{where}: {key} {shorten(value)} is too large")
    return plain


def four_numbers(
    value: Any, where: str, what: str = "bbox", order: str = "x, y, w, h"
) -> tuple[float, float, float, float]:
    """Return the four numbers of a `bbox`, or of what is called `what`.

    Raises:
        DataError: It is no list of four finite numbers.
    """
    numbers = finite_numbers(value)
    if numbers is None or len(numbers) != 4:
        raise DataError(
            f"{where}: {what} must be four finite numbers {order}, not {shorten(value):.80}"
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def finite_numbers(value: Any) -> list[float] | None:
    """Return a list of finite numbers under 1e15, or None where it is none."""
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    numbers = [float(v) for v in value if is_number(v)]
    return numbers if len(numbers) == len(value) else None


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number under 1e15."""
    if isinstance(value, np.generic):
        value = value.item()
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and -1e15 < value < 1e15 and not math.isnan(value)
