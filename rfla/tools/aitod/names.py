"""What the annotation files of AI-TOD and AI-TOD-v2 say of images: names, sizes and splits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rfla.data.formats.images import split_of
from rfla.errors import DataError
from rfla.json_file import read_json

SIDE = 800  # px, of every image of AI-TOD
FROM_XVIEW = re.compile(r"(\d{1,9})__(\d{1,9})_(\d{1,9})\.png")  # scene, x and y of the window


@dataclass(frozen=True)
class Wanted:
    """One annotated image: its name, its directory below `images/`, and its stated size in px."""

    name: str
    folder: str
    width: int
    height: int

    @property
    def relative(self) -> str:
        """Path below the output directory."""
        return f"images/{self.folder}/{self.name}"


def find_annotations(source: Path) -> dict[str, Path]:
    """Return the annotation files by the name they get: `aitod_trainval`, `aitodv2_test`, ...

    Known names: `aitod_test_v1.json`, `aitod_training_v1.0.json`, `small_trainval_v1_1.0.json`,
    `aitodv2_test.json`, `small_test_v2_3.0.json`, and so on.

    Raises:
        DataError: There is none, or two for one split.
    """
    if not source.exists():
        raise DataError(f"annotations={source}: no such file or directory")
    found: dict[str, Path] = {}
    for path in [source] if source.is_file() else sorted(source.rglob("*.json")):
        split = split_of(path.stem)
        if split is None or path.name.startswith("."):
            continue
        version = "aitodv2" if re.search(r"aitod-?_?v2|_v2", path.stem.lower()) else "aitod"
        key = f"{version}_{split}"
        if key in found and found[key].read_bytes() != path.read_bytes():
            raise DataError(
                f"annotations={source}: {found[key]} and {path} are both {key}; "
                "keep one of them there"
            )
        found[key] = path
    if not found:
        raise DataError(
            f"annotations={source}: no .json file named after train, val, trainval or test"
        )
    return found


def images_of(files: Mapping[str, Path]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return width and height of the images of each file by name."""
    return {key: _entries(path) for key, path in files.items()}


def _entries(path: Path) -> dict[str, tuple[int, int]]:
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: not a COCO file: no list 'images'")
    entries: dict[str, tuple[int, int]] = {}
    for row, image in enumerate(images):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: images[{row}] has no file_name")
        sides = [image.get(key, SIDE) for key in ("width", "height")]
        if any(type(side) is not int or side < 1 for side in sides):
            raise DataError(
                f"{path}: images[{row}]: width and height must be whole numbers, not {sides}"
            )
        entries[Path(name.replace("\\", "/")).name] = (sides[0], sides[1])
    return entries


def wanted_images(images: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[Wanted]:
    """Return every image of all files (from `images_of`) once.

    Those of test are in `test`, all others in `trainval`.
    """
    wanted: dict[tuple[str, str], Wanted] = {}
    for key, entries in images.items():
        folder = "test" if key.endswith("_test") else "trainval"
        for name, (width, height) in entries.items():
            wanted[folder, name] = Wanted(name, folder, width, height)
    return [wanted[key] for key in sorted(wanted)]


def shared_scenes(wanted: Iterable[Wanted]) -> int:
    """Count the scenes that have tiles in trainval and in test."""
    of: dict[str, set[str]] = {"trainval": set(), "test": set()}
    for image in wanted:
        match = FROM_XVIEW.fullmatch(image.name)
        if match:
            of[image.folder].add(match[1])
    return len(of["trainval"] & of["test"])
