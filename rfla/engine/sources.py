"""What `source=` may be: an image, a directory, a glob pattern, a list file.

From Python also arrays.
"""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.images import is_image, read_image
from rfla.errors import DataError

Image = np.ndarray[Any, np.dtype[Any]]
Source = str | Path | Image | Iterable[Any]


@dataclass(frozen=True)
class SourceImage:
    """One image to run on: a file that is read when it is needed, or an array.

    Attributes:
        name: The file's path, or a made-up name for an array.
        relative: Where its picture goes below the output directory.
        pixels: (H, W, 3) uint8 RGB for an array, None for a file.
    """

    name: str
    relative: Path
    pixels: Image | None = None

    def read(self) -> Image:
        """Return (H, W, 3) uint8 RGB.

        Raises:
            DataError: The file is not a readable image.
        """
        return self.pixels if self.pixels is not None else read_image(self.name)


def find_images(source: Source) -> list[SourceImage]:
    """List the images of a source, in a fixed order.

    Args:
        source: Path of an image, of a directory (searched with its subdirectories), of a .txt list
            (one path a line), a glob pattern, an (H, W, 3) uint8 RGB array, a PIL image, or a list
            of those.

    Raises:
        DataError: Nothing there, or no image among it.
    """
    if isinstance(source, str | Path):
        return _from_path(str(source))
    if isinstance(source, np.ndarray) or hasattr(source, "convert"):
        return [_from_array(source, 0)]
    found = []
    for number, item in enumerate(source):
        found += (
            _from_path(str(item)) if isinstance(item, str | Path) else [_from_array(item, number)]
        )
    return found


def _from_path(source: str) -> list[SourceImage]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file))
        if not files:
            raise DataError(f"source={source}: no images in this directory")
        return [SourceImage(str(file), file.relative_to(path)) for file in files]
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _from_list(path)
        if not is_image(path):
            raise DataError(
                f"source={source}: not an image; allowed are images, a directory, a glob pattern or a .txt list"
            )
        return [SourceImage(str(path), Path(path.name))]
    if glob.has_magic(source):
        files = sorted(
            Path(name) for name in glob.glob(str(path), recursive=True) if is_image(Path(name))
        )
        if not files:
            raise DataError(f"source={source}: the pattern matches no image")
        return [SourceImage(str(file), Path(file.name)) for file in files]
    raise DataError(f"source={source}: no such file or directory")


def _from_list(path: Path) -> list[SourceImage]:
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"source={path}: not a text file of image paths") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        named = Path(line.strip()).expanduser()
        file = named if named.is_absolute() or named.is_file() else path.parent / named
        if not file.is_file():
            raise DataError(f"{path}:{number}: no such image: {line.strip()}")
        found.append(SourceImage(str(file), Path(file.name)))
    if not found:
        raise DataError(f"{path}: the list names no image")
    return found


def _from_array(item: Any, number: int) -> SourceImage:
    pixels = np.asarray(item.convert("RGB") if hasattr(item, "convert") else item)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None].repeat(3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise DataError(
            f"image {number}: an (H, W, 3) uint8 RGB array is expected, not {pixels.shape} {pixels.dtype}"
        )
    return SourceImage(f"image{number}", Path(f"image{number}.png"), pixels)


def output_names(images: Iterable[SourceImage]) -> Iterator[Path]:
    """Yield a picture's name for each image, below the output directory.

    Equal names are numbered apart.
    """
    taken: set[Path] = set()
    for image in images:
        stem, number = image.relative.with_suffix(""), 1
        name = stem
        while name in taken:
            number += 1
            name = stem.with_name(f"{stem.name}_{number}")
        taken.add(name)
        yield name
