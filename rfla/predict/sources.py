"""What `source=` may be: an image, a directory, a glob pattern, a list file.

From Python also arrays, tensors, PIL images, and lists of all of these.
"""

import glob
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rfla.data.images import is_image, read_image, walk_images
from rfla.data.pixel_range import Range, find_range, to_uint8
from rfla.data.scenes import read_by_windows
from rfla.errors import ConfigError, DataError
from rfla.files import open_regular, read_regular

Image = np.ndarray[Any, np.dtype[Any]]
Source = str | Path | Image | Iterable[Any]
Channels = Literal["rgb", "bgr"]

LONGEST = 180  # bytes of an output's name; with suffixes and a temporary prefix it fits into 255
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
ALLOWED = "allowed are an image, a directory, a glob pattern or a .txt list of paths"


@dataclass(frozen=True)
class SourceImage:
    """One image to run on: a file that is read when it is needed, or an array.

    Attributes:
        name: The file's path, or a made-up name for an array.
        relative: Its place below the source: how it is named in outputs, with its suffix.
        pixels: (H, W, 3) uint8 RGB for an array, None for a file.
    """

    name: str
    relative: Path
    pixels: Image | None = None

    @property
    def by_windows(self) -> bool:
        """Whether it is too large to be decoded whole, and rasterio is there to read parts."""
        return self.pixels is None and read_by_windows(Path(self.name))

    def read(self, value_range: Range | None = None, remarks: list[str] | None = None) -> Image:
        """Return (H, W, 3) uint8 RGB.

        Args:
            value_range: As in `read_image`.
            remarks: As in `read_image`.

        Raises:
            DataError: The file is not a readable image.
        """
        if self.pixels is not None:
            return self.pixels
        return read_image(self.name, value_range=value_range, remarks=remarks)


def find_images(source: Source, channels: Channels = "rgb") -> list[SourceImage]:
    """List the images of a source, in a fixed order.

    Args:
        source: Path of an image, of a directory (searched with its subdirectories), of a .txt list
            (one path a line), a glob pattern, an array or tensor, a PIL image, or a list of those.
        channels: Order of the colours in arrays and tensors; OpenCV reads `bgr`.

    Raises:
        ConfigError: Another order.
        DataError: Nothing there, or no image among it.
    """
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"channels={channels}: must be rgb or bgr (what cv2.imread returns)")
    if isinstance(source, str | Path):
        return _from_path(str(source))
    if _is_picture(source):
        return [_from_array(source, 0, channels)]
    items = list(source)
    files = [str(item) for item in items if isinstance(item, str | Path)]
    if len(files) == len(items) and all(os.path.isfile(file) for file in files):
        return _named_below_their_root(files)
    found = []
    for number, item in enumerate(items):
        if isinstance(item, str | Path):
            found += _from_path(str(item))
        else:
            found.append(_from_array(item, number, channels))
    return found


def _is_picture(source: Any) -> bool:
    """Whether this is one array, tensor or PIL image (a list of pictures is none)."""
    return isinstance(source, np.ndarray) or hasattr(source, "convert") or _is_tensor(source)


def _is_tensor(source: Any) -> bool:
    return hasattr(source, "detach") and hasattr(source, "cpu")


def _from_path(source: str) -> list[SourceImage]:
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        files = walk_images(path)
        if not files:
            raise DataError(f"source={source}: no images in this directory")
        return [SourceImage(str(file), file.relative_to(path)) for file in files]
    if not path.exists() and glob.has_magic(source):
        return _from_pattern(source)
    _refuse_other_kinds(source, path)
    if path.suffix.lower() == ".txt":
        return _from_list(path)
    return [SourceImage(str(path), Path(path.name))]


def check_source(source: str) -> None:
    """Refuse a source that is not there or not read, without listing a directory.

    Raises:
        DataError: With what to do instead.
    """
    path = Path(os.path.expanduser(source))
    if not path.is_dir() and (path.exists() or not glob.has_magic(source)):
        _refuse_other_kinds(source, path)


def _refuse_other_kinds(source: str, path: Path) -> None:
    """Refuse what is no image file and no list, before it is opened.

    Raises:
        DataError: With what to do instead.
    """
    suffix = path.suffix.lower()
    if "://" in source:
        raise DataError(f"source={source}: addresses are not read; download the file first")
    if source.isdigit() and not path.exists():
        raise DataError(f"source={source}: cameras are not read; {ALLOWED}")
    if suffix in VIDEOS:
        raise DataError(
            f"source={source}: videos are not read; take its frames first: "
            f"ffmpeg -i {path.name} frames/%06d.png"
        )
    if not path.exists():
        raise DataError(f"source={source}: no such file or directory")
    open_regular(path).close()
    if suffix != ".txt" and not is_image(path):
        raise DataError(f"source={source}: not an image; {ALLOWED}")


def _from_pattern(source: str) -> list[SourceImage]:
    """List the images of a glob pattern, named below the part of it that has no wildcards."""
    pattern = os.path.expanduser(source)
    files = sorted(
        Path(name) for name in glob.glob(pattern, recursive=True) if is_image(Path(name))
    )
    if not files:
        raise DataError(f"source={source}: the pattern matches no image")
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return [SourceImage(str(file), Path(*file.parts[fixed:])) for file in files]


def _from_list(path: Path) -> list[SourceImage]:
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"source={path}: not a text file of image paths") from None
    files = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        named = Path(os.path.expanduser(line.strip()))
        file = named if named.is_absolute() or named.is_file() else path.parent / named
        if not file.is_file():
            raise DataError(f"{path}:{number}: no such image: {line.strip()}")
        files.append(str(file))
    if not files:
        raise DataError(f"{path}: the list names no image")
    return _named_below_their_root(files)


def _named_below_their_root(files: Sequence[str]) -> list[SourceImage]:
    """Name files by their place below the directory that holds all of them."""
    whole = [os.path.abspath(os.path.expanduser(file)) for file in files]
    try:
        root = os.path.commonpath([os.path.dirname(file) for file in whole])
    except ValueError:  # several drives of Windows
        return [SourceImage(file, Path(Path(file).name)) for file in files]
    return [
        SourceImage(file, Path(os.path.relpath(absolute, root)))
        for file, absolute in zip(files, whole, strict=True)
    ]


def _from_array(item: Any, number: int, channels: Channels) -> SourceImage:
    """Take an array, a tensor or a PIL image.

    Raises:
        DataError: It is not (H, W), (H, W, 3), or as a tensor (3, H, W), of 8 or 16 bits.
    """
    is_pillow = hasattr(item, "convert")
    if _is_tensor(item):
        item = item.detach().cpu().numpy()
        item = item.transpose(1, 2, 0) if item.ndim == 3 and item.shape[0] in (1, 3) else item
    pixels = np.asarray(item.convert("RGB") if is_pillow else item)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(
            f"image {number}: an (H, W, 3) or grey (H, W) array is expected, not {pixels.shape}"
        )
    if pixels.dtype == np.uint16:
        pixels = to_uint8(pixels, find_range(pixels))
    if pixels.dtype != np.uint8:
        raise DataError(
            f"image {number}: a uint8 or uint16 array is expected, not {pixels.dtype}; "
            "shares of 0 to 1 become one by (array * 255).astype('uint8')"
        )
    if channels == "bgr" and not is_pillow:
        pixels = pixels[..., ::-1]
    # A copy where it is a view with strides of its own, or read-only: torch takes neither.
    pixels = np.require(pixels, requirements=["C", "W"])
    return SourceImage(f"image{number}", Path(f"image{number}.png"), pixels)


def output_names(images: Iterable[SourceImage]) -> Iterator[Path]:
    """Yield a picture's name for each image, below the output directory, without suffix.

    Equal names are numbered apart, and names that are too long for a file system are shortened.
    """
    taken: set[Path] = set()
    numbers: dict[Path, int] = {}
    for image in images:
        stem = _inside(image.relative.with_suffix(""))
        name, number = stem, numbers.get(stem, 1)
        while name in taken:
            number += 1
            name = stem.with_name(f"{stem.name}_{number}")
        numbers[stem] = number
        taken.add(name)
        yield name


def _inside(relative: Path) -> Path:
    """Return a path that stays below the output directory, with names of a bearable length."""
    parts = [part for part in relative.parts if part not in ("..", relative.anchor)]
    return Path(*(_shortened(part) for part in parts or ["image"]))


def _shortened(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= LONGEST:
        return name
    return f"{data[:LONGEST].decode('utf-8', 'ignore')}_{zlib.crc32(data):08x}"
