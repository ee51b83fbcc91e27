"""What `source=` may be: images, videos, directories, glob patterns, lists, addresses, cameras.

From Python also arrays, tensors, PIL images, and lists of all of these.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from io import IOBase
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from rfla.data.image_files import in_run, is_image, walk_folders, walk_images
from rfla.errors import ConfigError, DataError, one_line, shorten
from rfla.files import open_regular, read_regular
from rfla.names import Channels
from rfla.predict.download import WebFile, is_address, require_http
from rfla.predict.source_image import Image, Reading, Source, SourceImage, picture
from rfla.predict.videos import Camera, Video, is_video, require_camera

Given = str | int | Path | Image | Iterable[Any]

ALLOWED = (
    "allowed are an image or video, a directory, a glob pattern, a .txt list of paths, "
    "an http(s) address or the number of a camera"
)
NOT_OF_RUNS = " (those of runs are left out; name the directory of one to have them)"
ALLOWED_TOO = f"{ALLOWED}, an array, a tensor, a PIL image, or a list or an iterator of those"


@dataclass(frozen=True)
class Feed:
    """Pictures that come one by one, from an iterator that may wait for each and need not end.

    Attributes:
        pictures: Arrays, tensors and PIL images.
        channels: Order of the colours in arrays and tensors.
    """

    pictures: Iterator[Any]
    channels: Channels
    name: str = "feed"
    relative: Path = Path("feed.png")

    def expected(self, how: Reading) -> int:
        """Return 1: nobody knows."""
        return 1

    def images(self, how: Reading) -> Iterator[SourceImage]:
        """Yield every `how.stride`-th picture, with its number."""
        for number, item in enumerate(self.pictures):
            if number % how.stride:
                continue
            try:
                array = _from_array(item, number, self.channels)
                pixels: Image | DataError = array.read(how.value_range)
            except DataError as error:
                pixels = error
            yield picture(self, pixels, number)


def find_sources(
    source: Given, channels: Channels = "rgb", *, recursive: bool = True, stream: bool = False
) -> list[Source]:
    """List what a source consists of, in a fixed order.

    Args:
        source: Path of an image or video, of a directory, of a .txt list (one path or address a
            line), a glob pattern, an http(s) address, the number of a camera, an array or tensor,
            a PIL image, or a list or an iterator of those.
        channels: Order of the colours in arrays and tensors; OpenCV reads `bgr`.
        recursive: Search directories with their subdirectories.
        stream: Take pictures of an iterator (a generator) as they come; it is read to its end
            otherwise.

    Raises:
        ConfigError: Another order.
        DataError: Nothing there, or no image among it.
    """
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"channels={channels}: must be rgb or bgr (what cv2.imread returns)")
    if isinstance(source, str | Path | int | np.integer):
        return _from_text(str(source), recursive)
    if _is_picture(source):
        return [_from_array(source, 0, channels)]
    if stream and isinstance(source, Iterator):
        first = next(source, None)
        source = source if first is None else chain([first], source)
        if _is_picture(first):
            return [Feed(source, channels)]
    if not isinstance(source, Iterable) or isinstance(source, bytes | Mapping | IOBase):
        raise DataError(f"source is {shorten(source)}, a {type(source).__name__}; {ALLOWED_TOO}")
    if isinstance(source, Sized) and not len(source):
        raise DataError(f"source is an empty {type(source).__name__}")
    return _from_items(list(source), channels, recursive)


def _from_items(items: Sequence[Any], channels: Channels, recursive: bool) -> list[Source]:
    """List what the items of a list consist of."""
    files = [str(item) for item in items if isinstance(item, str | Path)]
    if len(files) == len(items) and all(os.path.isfile(file) for file in files):
        return _named_below_their_root(files)
    found: list[Source] = []
    for number, item in enumerate(items):
        if isinstance(item, str | Path | int | np.integer):
            found += _from_text(str(item), recursive)
        else:
            found.append(_from_array(item, number, channels))
    return found


def _is_picture(source: Any) -> bool:
    """Whether this is one array, tensor or PIL image (a list of pictures is none)."""
    return isinstance(source, np.ndarray) or hasattr(source, "convert") or _is_tensor(source)


def _is_tensor(source: Any) -> bool:
    return hasattr(source, "detach") and hasattr(source, "cpu")


def _is_wanted(path: Path) -> bool:
    return is_image(path) or is_video(path)


def _file(path: str, relative: Path) -> Source:
    """Return the source for one file, by its name."""
    if is_video(Path(path)):
        return Video(path, relative, Path(path))
    return SourceImage(path, relative)


def _from_text(source: str, recursive: bool) -> list[Source]:
    if not source.strip():
        raise DataError(f"source is an empty string; {ALLOWED_TOO}")
    path = Path(os.path.expanduser(source))
    if is_address(source):
        require_http(source)
        return [WebFile(source)]
    if os.path.isdir(path):  # unlike a Path's, no error for a name that is too long
        return _from_directory(path, source, recursive)
    if not os.path.exists(path) and source.isdecimal():
        return [Camera(_camera_number(source))]
    if not os.path.exists(path) and glob.has_magic(source):
        return _from_pattern(source)
    _refuse_other_kinds(source, path)
    if path.suffix.lower() == ".txt":
        return _from_list(path)
    return [_file(str(path), Path(path.name))]


def _from_directory(path: Path, source: str, recursive: bool) -> list[Source]:
    """List the files in a directory, then the directories in it that nobody may list."""
    closed: list[OSError] = []
    files = walk_images(path, _is_wanted, recursive=recursive, closed=closed.append)
    found = [_file(str(file), file.relative_to(path)) for file in files]
    for error in closed:
        reason = DataError(f"{error.filename}: cannot be read ({error.strerror})")
        place = Path(error.filename).relative_to(path)
        found.append(SourceImage(str(error.filename), place, failure=reason))
    if not found:
        deeper = NOT_OF_RUNS if recursive else " itself; recursive=true searches those in it too"
        raise DataError(f"source={source}: no images in this directory{deeper}")
    return found


def check_source(source: str) -> None:
    """Refuse a source that is not there or not read, without listing a directory.

    Raises:
        DataError: With what to do instead.
    """
    path = Path(os.path.expanduser(source))
    if is_address(source):
        require_http(source)
    elif not path.exists() and source.isdecimal():
        _camera_number(source)
    elif not path.is_dir() and (path.exists() or not glob.has_magic(source)):
        _refuse_other_kinds(source, path)


def refuse_endless(sources: Iterable[Source], stream: bool) -> None:
    """Refuse a camera where all results are to be returned at once.

    Raises:
        ConfigError: With what to do instead.
    """
    if not stream and any(isinstance(source, Camera) for source in sources):
        raise ConfigError(
            "a camera has no end; use: for result in model.predict(0, stream=True): ..."
        )


def are_live(sources: Iterable[Source]) -> bool:
    """Whether images come when they come, so that a batch would wait for them."""
    return any(isinstance(source, Camera | Feed) for source in sources)


def _camera_number(source: str) -> int:
    """Return the number of a camera that there may be.

    Raises:
        DataError: There is none.
    """
    number = int(source) if len(source) < 4 else 999
    require_camera(number)
    return number


def _refuse_other_kinds(source: str, path: Path) -> None:
    """Refuse what is no image, no video and no list, before it is opened.

    Raises:
        DataError: With what to do instead.
    """
    if not os.path.exists(path):
        raise DataError(f"source={source}: no such file or directory")
    open_regular(path).close()
    if path.suffix.lower() != ".txt" and not _is_wanted(path):
        raise DataError(f"source={source}: not an image; {ALLOWED}")


def _from_pattern(source: str) -> list[Source]:
    """List the files of a glob pattern, named below the part of it that has no wildcards."""
    pattern = os.path.expanduser(source)
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = sorted(set(filter(_is_wanted, _matching(root, parts[fixed:]))))
    runs = {folder for folder in {file.parent for file in found} if in_run(folder, root)}
    files = [file for file in found if file.parent not in runs]
    if not files:
        raise DataError(f"source={source}: the pattern matches no image{NOT_OF_RUNS}")
    return [_file(str(file), Path(*file.parts[fixed:])) for file in files]


def _matching(base: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a directory that a pattern matches.

    `glob` would follow a link to a directory above for ever: `**` enters none twice.
    """
    if "**" not in pattern:
        found = glob.glob(os.path.join(glob.escape(str(base)), *pattern))
        yield from (Path(name) for name in found if os.path.isfile(name))
        return
    at = pattern.index("**")
    starts = glob.glob(os.path.join(glob.escape(str(base)), *pattern[:at])) if at else [str(base)]
    rest = pattern[at + 1 :] or ("*",)
    for start in map(Path, starts):
        for folder in walk_folders(start):
            inside = folder.relative_to(start).parts
            if not any(part.startswith(".") for part in inside):  # as in a shell
                yield from _matching(folder, rest)


def _from_list(path: Path) -> list[Source]:
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"source={path}: not a text file of image paths") from None
    files = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if is_address(line):
            require_http(line.strip())
            files.append(line.strip())
            continue
        named = Path(os.path.expanduser(line.strip()))
        places = [path.parent / named, named]  # the second for lists made by `ls` or `find`
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DataError(f"{path}:{number}: no such image: {line.strip()}")
        files.append(str(file))
    if not files:
        raise DataError(f"{path}: the list names no image")
    return _named_below_their_root(files)


def _named_below_their_root(names: Sequence[str]) -> list[Source]:
    """Name files by their place below the directory that holds all of them."""
    files = [name for name in names if not is_address(name)]
    whole = {file: os.path.abspath(os.path.expanduser(file)) for file in files}
    try:
        root = os.path.commonpath([os.path.dirname(file) for file in whole.values()] or ["."])
        places = {file: Path(os.path.relpath(path, root)) for file, path in whole.items()}
    except ValueError:  # several drives of Windows
        places = {file: Path(Path(file).name) for file in files}
    return [_file(name, places[name]) if name in places else WebFile(name) for name in names]


def _from_array(item: Any, number: int, channels: Channels) -> SourceImage:
    """Take an array, a tensor or a PIL image.

    Raises:
        DataError: It is not (H, W), (H, W, 3), or as a tensor (3, H, W), of 8 or 16 bits.
    """
    is_pillow = hasattr(item, "convert")
    try:
        pixels = _from_pillow(item) if is_pillow else _from_numbers(item)
    except (OSError, RuntimeError, SyntaxError, TypeError, ValueError) as error:
        # Pillow raises what it likes; a tensor of the device "meta" has no pixels
        raise DataError(f"image {number}: cannot be read ({one_line(error)})") from None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(
            f"image {number}: an (H, W, 3) or grey (H, W) array is expected, not {pixels.shape}"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        mend = "; shares of 0 to 1 become one by (array * 255).astype('uint8')"
        raise DataError(
            f"image {number}: a uint8 or uint16 array is expected, not {pixels.dtype}"
            f"{mend if pixels.dtype.kind == 'f' else ''}"
        )
    if channels == "bgr" and not is_pillow:
        pixels = pixels[..., ::-1]
    # A copy where it is a view with strides of its own, or read-only: torch takes neither.
    pixels = np.require(pixels, requirements=["C", "W"])
    return SourceImage(f"image{number}", Path(f"image{number}.png"), pixels)


def _from_numbers(item: Any) -> Image:
    """Return the pixels of an array or a tensor: (H, W), or (H, W, channels)."""
    if not _is_tensor(item):
        return _native(np.asarray(item))
    pixels: Image = item.detach().cpu().numpy()
    channels_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3)
    return pixels.transpose(1, 2, 0) if channels_first else pixels


def _from_pillow(item: Any) -> Image:
    """Return the pixels of a PIL image, grey ones of more than 8 bits as they are.

    Turned as its EXIF orientation says, as a file is.
    """
    item = ImageOps.exif_transpose(item)
    # Turned into RGB, values above 255 would all be 255.
    deep = item.mode in ("I", "F") or item.mode.startswith("I;")
    return _native(np.asarray(item if deep else item.convert("RGB")))


def _native(pixels: Image) -> Image:
    """Return numbers in this machine's order of bytes."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
