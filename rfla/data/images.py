"""Image files -> RGB arrays, and the one resize of the package.

Shapes: an image is (H, W, 3) uint8, RGB, with the EXIF orientation applied. Grey is repeated, alpha
is dropped, CMYK is converted, 16 bit are divided by 256 (no stretch by content: two images of one
sensor stay comparable).
"""

import io
import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.errors import DataError

Image = NDArray[np.uint8]

STRIDE = 32  # px: the input of a network is padded to a multiple of it

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".gif", ".ppm", ".pgm"}
)

_JPEG, _JPEG_END, _PNG, _PNG_END = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n", b"IEND"
_TAIL = 4096  # bytes in which the end of a file is looked for first
_SWAPS_SIDES = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112
_PHOTOMETRIC, _SAMPLES_PER_PIXEL = 262, 277  # TIFF tags
_GREY, _RGB = (0, 1), 2  # values of the first

if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(
        0
    )  # a line for each unknown tag of a GeoTIFF otherwise; what cannot be read, we say ourselves


def is_image(path: Path) -> bool:
    """Whether the name looks like an image; hidden files (`._x.png` of a Mac archive) do not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def walk_images(directory: Path) -> list[Path]:
    """Return the images below a directory, sorted by path.

    Linked directories are entered, after all others, but none twice and none that holds `directory`
    itself.
    """
    start = os.path.realpath(directory)
    found: list[Path] = []
    seen: set[str] = set()
    todo = [str(directory)]
    while todo:
        for folder, names, files in os.walk(todo.pop(0)):
            real = os.path.realpath(folder)
            if real in seen or (seen and Path(start).is_relative_to(real)):
                names.clear()
                continue
            seen.add(real)
            found += [path for name in files if is_image(path := Path(folder, name))]
            todo += [
                link for name in sorted(names) if os.path.islink(link := os.path.join(folder, name))
            ]
    return sorted(found)


def read_image(path: str | Path, *, exif: bool = True) -> Image:
    """Read one image file as (H, W, 3) uint8 RGB.

    Args:
        path: Any name the file system takes, spaces and non-ASCII letters included.
        exif: Apply the EXIF orientation, as viewers and annotation tools do.

    Raises:
        DataError: The file is missing, empty, truncated or not an image.
    """
    data = _read_bytes(path)
    if _is_truncated_jpeg(data):
        raise DataError(f"{path}: truncated JPEG (no end marker after {len(data):,} bytes)")
    photometric, samples = _tiff_colour(data)
    if samples >= 3 and photometric in _GREY:  # OpenCV would misread raw bands, and say nothing
        raise DataError(
            f"{path}: a TIFF of {samples} bands that are not marked as RGB; 'rfla convert' with rfla[geo] rewrites it, "
            "or gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB IN OUT"
        )
    if samples == 4 and photometric == _RGB:  # OpenCV would multiply the colours by the fourth band
        return _read_with_pillow(path, data, exif)
    flags = cv2.IMREAD_COLOR if exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        return _read_with_pillow(path, data, exif)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)


def read_annotated(path: str | Path, stated: tuple[int, int]) -> Image:
    """Read the picture that boxes were drawn on, from the size that their annotations state.

    The pixels as stored are taken where only they, without the EXIF orientation, have that size.

    Args:
        path: As in `read_image`.
        stated: Height and width that the annotations state, px.

    Returns:
        (H, W, 3) uint8 RGB, of the stated size or the same picture resized: boxes are to be scaled
        then.

    Raises:
        DataError: As in `read_image`; an image of another shape, for which the boxes cannot have
            been drawn.
    """
    image = read_image(path)
    found = image.shape[:2]
    if found != stated and found == stated[::-1]:
        plain = read_image(path, exif=False)
        image, found = (plain, stated) if plain.shape[:2] == stated else (image, found)
    if found != stated and not is_resized(stated, found):
        raise DataError(
            f"{path}: {found[1]} x {found[0]} px, but its annotations state {stated[1]} x {stated[0]}"
        )
    return image


def is_resized(stated: tuple[int, int], found: tuple[int, int]) -> bool:
    """Tell whether two sizes, in px, have one shape, but for the pixel to which a side was rounded."""
    return abs(found[1] * stated[0] - found[0] * stated[1]) <= max(*stated, *found)


def image_size(path: str | Path, *, exif: bool = True) -> tuple[int, int]:
    """Height and width in px from the header alone (no pixels are decoded), of the image that `read_image` would read.

    Raises:
        DataError: The file is missing or not an image.
    """
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    try:
        with PillowImage.open(path) as image:
            width, height = image.size
            # Only JPEG, TIFF and WebP store an orientation in practice; getexif() costs more than
            # the header itself.
            may_turn = exif and image.format in {"JPEG", "MPO", "TIFF", "WEBP"}
            turned = may_turn and image.getexif().get(_ORIENTATION) in _SWAPS_SIDES
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
        PillowImage.DecompressionBombError,
    ) as error:
        raise DataError(f"{path}: not a readable image ({_one_line(error)})") from None
    return (width, height) if turned else (height, width)


def require_whole(path: Path) -> None:
    """Refuse a JPEG or PNG whose end is missing, without decoding it.

    Its header says nothing of that.

    Raises:
        DataError: The file is cut off.
    """
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - _TAIL, 0))
        tail = file.read()
    if start.startswith(_JPEG) and _JPEG_END not in tail and _is_truncated_jpeg(_read_bytes(path)):
        raise DataError(f"{path}: truncated JPEG (no end marker)")
    if start == _PNG and _PNG_END not in tail and _PNG_END not in _read_bytes(path):
        raise DataError(f"{path}: truncated PNG (no end)")


def resize_long_side(image: Image, imgsz: int) -> tuple[Image, tuple[float, float]]:
    """Resize so that the long side is `imgsz` px with the aspect kept: mmcv's `Resize(keep_ratio=True)`, cv2 bilinear.

    Args:
        image: (H, W, 3) uint8.
        imgsz: Long side of the result, px.

    Returns:
        The image and `(sx, sy)`, output px per input px. They differ a little because both sides
        are rounded.
    """
    height, width = image.shape[:2]
    new_height, new_width = resized_shape(height, width, imgsz)
    if (new_height, new_width) == (height, width):
        return image, (1.0, 1.0)
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8), (new_width / width, new_height / height)


def resized_shape(height: int, width: int, imgsz: int) -> tuple[int, int]:
    """Height and width that `resize_long_side` gives: the other side is rounded half up, never under 1 px."""
    scale = imgsz / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def write_image(path: Path, image: Image, *, quality: int = 92) -> None:
    """Write an RGB image beside `path` and rename it there, so that a kill leaves no half file."""
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    }
    done, data = cv2.imencode(
        path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options.get(path.suffix, [])
    )
    if not done:
        raise DataError(f"{path}: cannot encode an image of shape {image.shape} as {path.suffix}")
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data.tobytes())
    beside.replace(path)


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise DataError(f"{path}: empty file")
    return data


def _is_truncated_jpeg(data: bytes) -> bool:
    # OpenCV fills the missing part with grey and says nothing. An embedded thumbnail has an end
    # marker of its own, but in the first half of the file.
    return data.startswith(_JPEG) and data.rfind(_JPEG_END) < len(data) // 2


def _tiff_colour(data: bytes) -> tuple[int, int]:
    """Photometric interpretation and number of bands of a (classic) TIFF.

    (-1, 0) for anything else.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return -1, 0
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[start : start + 2], order)
    tags = {}
    for at in range(start + 2, min(start + 2 + 12 * entries, len(data) - 11), 12):
        tag, value = (
            int.from_bytes(data[at : at + 2], order),
            int.from_bytes(data[at + 8 : at + 10], order),
        )
        tags[tag] = value
    return tags.get(_PHOTOMETRIC, -1), tags.get(_SAMPLES_PER_PIXEL, 1)


def _read_with_pillow(path: str | Path, data: bytes, exif: bool) -> Image:
    # What OpenCV cannot decode: GIF, some TIFF compressions, odd colour spaces.
    from PIL import Image as PillowImage
    from PIL import ImageOps

    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if exif else image
            return np.asarray(upright.convert("RGB"), np.uint8).copy()
    except Exception as error:  # Pillow's decoders raise what they like on hostile bytes
        raise DataError(f"{path}: not a readable image ({_one_line(error)})") from None


def _one_line(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if text.startswith("cannot identify image file"):  # Pillow adds the address of its buffer
        return "no known format"
    return text if len(text) <= 120 else text[:117] + "..."
