"""Which format the files of a split are of, by a look into the first of them."""

import re
from collections.abc import Callable

from rfla.data.formats import dota, yolo
from rfla.data.formats.text import is_number
from rfla.data.record import Part
from rfla.errors import DataError
from rfla.files import read_regular

_COCO = (b'"images"', b'"annotations"', b'"categories"')
_ONE_IMAGE = re.compile(rb'"images"\s*:\s*\{')
_CVAT = re.compile(rb"<annotations[\s>]")
_VOC = re.compile(rb"<annotation[\s>]")
_FIRST = 200  # files looked into for one that is not empty


def _content(part: Part) -> bytes:
    """The content of the first annotation file that is not empty."""
    for path in part.annotations[:_FIRST]:
        try:
            data = read_regular(path)
        except DataError:
            continue
        if data.strip():
            return data
    return b""


def _columns(part: Part, separator: str | None) -> list[str]:
    """The columns of the first row of the first annotation file."""
    text = _content(part).decode("utf-8", "replace").removeprefix("\ufeff")
    lines = [line.strip() for line in text.splitlines()]
    rows = [line for line in lines if line and not line.lower().startswith(dota.HEAD)]
    return rows[0].rstrip(",").split(separator) if rows else []


def _is_coco(part: Part, one_image: bool = False) -> bool:
    """Whether a file has the keys of COCO; of SODA-A where `images` is a single object."""
    data = _content(part)
    return all(key in data for key in _COCO) and bool(_ONE_IMAGE.search(data)) == one_image


def _is_dota(part: Part) -> bool:
    """Whether a row is eight numbers and a name; YOLO's oriented boxes have nine numbers."""
    columns = _columns(part, None)
    return len(columns) in (9, 10) and not is_number(columns[8])


def _is_yolo(part: Part) -> bool:
    """Whether an image has a label file."""
    return any(yolo.label_file(path).is_file() for path in yolo.images_of(part, []))


# In this order: the first whose files are found and look like it.
LOOKS: dict[str, Callable[[Part], bool]] = {
    "coco": _is_coco,
    "soda": lambda part: _is_coco(part, one_image=True),
    "xview": lambda part: b'"bounds_imcoords"' in _content(part),
    "cvat": lambda part: bool(_CVAT.search(_content(part))),
    "voc": lambda part: bool(_VOC.search(_content(part))),
    "visdrone": lambda part: len(_columns(part, ",")) == 8,
    "dota": _is_dota,
    "yolo": _is_yolo,
    "csv": lambda part: True,
}
