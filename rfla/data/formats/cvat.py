"""CVAT's own XML, for images and for video: one file for many images.

An `image` has shapes (`<box label= xtl= ytl= xbr= ybr= rotation=/>`, polygons, ellipses, masks); a
`track` of a video has a shape for each frame, whose images CVAT names `frame_000000`. A shape
becomes the box round it. Polylines, points, skeletons and cuboids outline no object and are left
out and counted, and so are the shapes of frames in which an object is `outside` the picture.

A project is exported as one file whose images name their subset: those are the splits.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from rfla.data.annotations import LARGEST_SIDE, Annotations
from rfla.data.formats.images import image_folders, require_directory, root_of, split_of
from rfla.data.formats.left_out import LeftOut
from rfla.data.formats.text import as_text, parse_flag, parse_integer, parse_numbers
from rfla.data.formats.xml_file import parse_xml
from rfla.data.record import Classes, ImageRecord, Part, is_object, make_record
from rfla.errors import DataError, shorten
from rfla.files import read_regular

CORNERS = ("xtl", "ytl", "xbr", "ybr")
NO_BOX = ("polyline", "points", "skeleton", "cuboid")  # shapes that outline no object
NOT_READ = "shapes that outline no object (polylines, points, skeletons, cuboids)"

_SUBSET = re.compile(rb"<image\b[^>]*\bsubset\s*=\s*[\"']([^\"'<>]{1,200})[\"']")
_SIZE = ("original_size/width", "original_size/height")  # of a video, px

Attributes = Mapping[str, str]


def find(source: Path) -> dict[str, Part]:
    """Take one file, or `annotations.xml`, `{split}.xml`, `annotations/*.xml` of a directory.

    Images are beside them, in `images/{subset}`, or below.

    Raises:
        DataError: There is no XML file.
    """
    files = _files(source)
    if not files:
        raise DataError(f"source={source}: no .xml file, here or in annotations/")
    parts: dict[str, Part] = {}
    if len(files) == 1:
        for split, subsets in _subsets(files[0]).items():
            parts[split] = Part((files[0],), _images(files[0], split, subsets), split)
        if parts:
            return parts
    for file in files:
        of_folder = split_of(file.parent.name) if file.parent.parent == source else None
        split = of_folder or split_of(file.stem) or "train"
        earlier = parts.get(split, Part((), ()))
        images = dict.fromkeys((*earlier.images, *_images(file, split)))
        parts[split] = Part((*earlier.annotations, file), tuple(images))
    return parts


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    folder = require_directory(source)
    files = [*folder.glob("*.xml"), *folder.glob("annotations/*.xml")]
    if not files:
        files = [file for file in folder.glob("*/annotations.xml") if split_of(file.parent.name)]
    return sorted(file for file in files if not file.name.startswith("."))


def _subsets(file: Path) -> dict[str, list[str]]:
    """Return the splits that the images of a file state, with their names as written."""
    names = dict.fromkeys(
        match.decode("utf-8", "replace") for match in _SUBSET.findall(read_regular(file))
    )
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_of(name) or "train", []).append(name)
    return splits


def _images(file: Path, split: str, subsets: Iterable[str] = ()) -> tuple[Path, ...]:
    root = root_of(file)
    named = [root / "images" / name for name in subsets if "/" not in name and ".." not in name]
    folders = [*(folder for folder in named if folder.is_dir()), *image_folders(root, split)]
    return tuple(dict.fromkeys(folders))


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the labels in the order of the files' own tables; without one, of their first use."""
    names: dict[str, None] = {}
    for path in dict.fromkeys(path for part in parts for path in part.annotations):
        names.update(dict.fromkeys(_parse(path).class_names))
    return Classes(list(names))


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the images of a split, in the order of the files.

    Args:
        part: The files of the split.
        classes: The class table; None: what the files of this split name.
        to_write: Ignored: this format reads the same either way.
        strict: Refuse a malformed shape; otherwise leave it out and count it.

    Raises:
        DataError: With file and line: not XML, no numbers, an unknown class.
    """
    table = classes_of([part]) if classes is None else classes
    records: list[ImageRecord] = []
    left_out = LeftOut(strict)
    for path in part.annotations:
        file = _parse(path)
        for image in file.images_of(part.split):
            rows = _Rows()
            for shape in image.shapes:
                where = f"{path}:{shape.line}"
                if shape.kind in NO_BOX:
                    left_out.drop(NOT_READ, where)
                    continue
                try:
                    rows.add(shape, where, table)
                except DataError as error:
                    left_out.refuse(error)
            records.append(rows.record(image, path))
    return left_out.noted_in(Annotations.of_records(records, table))


@dataclass(frozen=True, slots=True)
class _Shape:
    """One element: a box or another outline."""

    kind: str
    label: str
    attributes: Attributes
    line: int


@dataclass(slots=True)
class _Image:
    """An image or a frame, with its shapes."""

    name: str
    line: int
    subset: str = ""
    size: tuple[str, str] = ("0", "0")
    shapes: list[_Shape] = field(default_factory=list)


class _Rows:
    """The boxes of one image, as they are read."""

    def __init__(self) -> None:
        self.boxes: list[list[float]] = []
        self.labels: list[int] = []
        self.occluded: list[int] = []
        self.lines: list[int] = []

    def add(self, shape: _Shape, where: str, classes: Classes) -> None:
        box = box_round(shape.kind, shape.attributes, where)
        label = classes.label(shape.label, where)
        occluded = parse_flag(shape.attributes.get("occluded", "0"), where, "occluded")
        self.boxes.append(box)
        self.labels.append(label)
        self.occluded.append(occluded)
        self.lines.append(shape.line)

    def record(self, image: _Image, path: Path) -> ImageRecord:
        where = f"{path}:{image.line}"
        width, height = (
            min(max(parse_integer(text or "0", where, name), 0), LARGEST_SIDE)
            for text, name in zip(image.size, ("width", "height"), strict=True)
        )
        return make_record(
            image.name,
            str(path),
            self.boxes,
            self.labels,
            lines=self.lines,
            size=(width, height),
            attributes={"occlusion": np.array(self.occluded, np.int64)},
        )


def box_round(kind: str, attributes: Attributes, where: str) -> list[float]:
    """Return the box x1, y1, x2, y2 in px round a shape.

    Raises:
        DataError: A number is missing or is none.
    """
    if kind == "polygon":
        return _box_round_points(attributes.get("points", ""), where)
    if kind == "mask":
        left, top, width, height = _numbers(attributes, ("left", "top", "width", "height"), where)
        return [left, top, left + width, top + height]
    (angle,) = parse_numbers([attributes.get("rotation", "0")], where)
    turn = math.radians(angle)
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    if kind == "ellipse":
        x, y, rx, ry = _numbers(attributes, ("cx", "cy", "rx", "ry"), where)
        half = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    else:
        x1, y1, x2, y2 = _numbers(attributes, CORNERS, where)
        if not angle:
            return [x1, y1, x2, y2]
        x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
        half = w * cos + h * sin, w * sin + h * cos
    return [x - half[0], y - half[1], x + half[0], y + half[1]]


def _box_round_points(text: str, where: str) -> list[float]:
    fields = text.replace(";", ",").split(",")
    if len(fields) < 6 or len(fields) % 2:
        raise DataError(f"{where}: points must be 'x,y;x,y;x,y;...', not {shorten(text)}")
    numbers = parse_numbers(fields, where)
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs), max(ys)]


def _numbers(attributes: Attributes, names: Iterable[str], where: str) -> list[float]:
    for name in names:
        if name not in attributes:
            raise DataError(f"{where}: this shape has no {name}")
    return parse_numbers([attributes[name] for name in names], where)


def _parse(path: Path) -> "_Reader":
    reader = _Reader(path)
    parse_xml(path, reader)
    return reader


class _Reader:
    """Gathers images, frames and labels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[_Image] = []
        self.frames: dict[str, _Image] = {}
        self.declared: list[str] = []
        self.texts: dict[str, str] = {}
        self._used: dict[str, None] = {}
        self._stack: list[str] = []
        self._pieces: list[str] = []
        self._track = ""

    @property
    def class_names(self) -> list[str]:
        """Labels as the file declares them, then others that its shapes use."""
        return list(dict.fromkeys(name for name in [*self.declared, *self._used] if name))

    def images_of(self, split: str) -> list[_Image]:
        """Return the images and frames of a split; of all for ""."""
        size = (self.texts.get(_SIZE[0], "0"), self.texts.get(_SIZE[1], "0"))
        for frame in self.frames.values():
            frame.size = size
        images = [*self.images, *(self.frames[name] for name in sorted(self.frames))]
        return [one for one in images if not split or (split_of(one.subset) or "train") == split]

    def start(self, tag: str, attributes: Attributes, line: int) -> None:
        if not self._stack and tag != "annotations":
            raise DataError(
                f"{self.path}:{line}: not a file of CVAT (its root is <{tag[:40]}>, "
                "not <annotations>)"
            )
        parent = self._stack[-1] if self._stack else ""
        self._stack.append(tag)
        self._pieces = []
        if len(self._stack) == 2 and tag == "image":
            self._start_image(attributes, line)
        elif len(self._stack) == 2 and tag == "track":
            self._track = attributes.get("label", "")
        elif len(self._stack) == 3 and parent == "image" and tag != "tag":
            self._add(self.images[-1], tag, attributes.get("label", ""), attributes, line)
        elif len(self._stack) == 3 and parent == "track":
            self._add_to_frame(tag, attributes, line)

    def _start_image(self, attributes: Attributes, line: int) -> None:
        name = attributes.get("name", "")
        if not name:
            raise DataError(f"{self.path}:{line}: this image has no name")
        size = attributes.get("width", "0"), attributes.get("height", "0")
        self.images.append(_Image(name, line, attributes.get("subset", ""), size))

    def _add_to_frame(self, tag: str, attributes: Attributes, line: int) -> None:
        """Add a shape of a track; a frame without it is an image all the same."""
        where = f"{self.path}:{line}"
        number = parse_integer(attributes.get("frame", ""), where, "frame")
        name = f"frame_{number:06d}"
        frame = self.frames.setdefault(name, _Image(name, line))
        if not parse_flag(attributes.get("outside", "0"), where, "outside"):
            self._add(frame, tag, self._track, attributes, line)

    def _add(self, image: _Image, tag: str, label: str, attributes: Attributes, line: int) -> None:
        image.shapes.append(_Shape(tag, label, attributes, line))
        if tag not in NO_BOX:
            self._used[label] = None

    def text(self, piece: str) -> None:
        self._pieces.append(piece)

    def end(self) -> None:
        text = "".join(self._pieces).strip()
        if self._stack[1:2] == ["meta"]:
            if self._stack[-3:] == ["labels", "label", "name"]:
                self.declared.append(text)
            self.texts.setdefault("/".join(self._stack[-2:]), text)
        self._stack.pop()
        self._pieces = []


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one file "for images 1.1". Ignored boxes, regions and ids are not held.

    Returns:
        What could not be held, counted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lost: Counter[str] = Counter()
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in classes.names)
    with path.open("w", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>'
        )
        file.write(f"\n  <meta><task><labels>{labels}</labels></task></meta>\n")
        for number, record in enumerate(records):
            kept = record.select(is_object(record))
            lost["ignored boxes (CVAT cannot hold them)"] += len(record) - len(kept)
            file.write(_image(number, kept, classes))
        file.write("</annotations>\n")
    return +lost


def _image(number: int, record: ImageRecord, classes: Classes) -> str:
    occlusion = record.attributes.get("occlusion", np.zeros(len(record), np.int64))
    boxes = ""
    for row, box in enumerate(record.boxes.tolist()):
        corners = " ".join(f'{n}="{as_text(v)}"' for n, v in zip(CORNERS, box, strict=True))
        label = quoteattr(classes.names[record.labels[row]])
        boxes += f'    <box label={label} occluded="{int(occlusion[row] > 0)}" {corners}/>\n'
    size = f'width="{record.width}" height="{record.height}"'
    name = quoteattr(record.file_name)
    return f'  <image id="{number}" name={name} {size}>\n{boxes}  </image>\n'
