"""Image files -> RGB arrays, and the one resize of the package.

Shapes: an image is (H, W, 3) uint8, RGB, with the EXIF orientation applied. Grey is repeated, alpha
is dropped, CMYK is converted; more than 8 bits become 8 as `rfla.data.pixel_range` says.
"""

import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from rfla.data.image_header import (
    FORMATS,
    JPEG,
    PNG,
    ImageHeader,
    TooLargeError,
    complaint,
    read_header,
    read_orientation,
    read_size,
    refuse_too_large,
)
from rfla.data.orientation import Orientation
from rfla.data.pixel_range import HUNDREDTH, Range, find_range, highest_value, to_uint8, uses_little
from rfla.data.tiff import BITS, PHOTOMETRIC, SAMPLE_FORMAT, SAMPLES, is_tiff, read_tiff_header
from rfla.errors import DataError, extra_needed
from rfla.files import foreign_content, open_regular, read_regular, write_atomically

Image = NDArray[np.uint8]
Found = TypeVar("Found")

# What `read_image` remarks on a file; the text is the same for all files it holds for.
MORE_IMAGES = "images of several pages or frames: the first of each is read"
FEW_BITS = (
    "16-bit images read as {bits}-bit, since no value is higher (the same value is darker in "
    "images with higher ones); normalize.range= sets one range for all"
)
DARK = (
    "16-bit images in which no value reaches a quarter of the range: they are dark; "
    "normalize.range= sets another, as [0,10000]"
)
BEYOND = (
    "images in which more than a hundredth of the values are above the range that is read: they "
    "are white; normalize.range= sets another"
)
NO_CONTRAST = "images that use less than a hundredth of their range, as black ones do"

_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND"
_PNG_BITS, _SIXTEEN = slice(24, 25), b"\x10"  # the byte that states them
_TAIL = 4096  # bytes in which the end of a file is looked for first
_GREY, _RGB, _FLOAT = (0, 1), 2, 3  # values of the TIFF tags PHOTOMETRIC and SAMPLE_FORMAT
_TO_RGB = (
    "gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB IN OUT rewrites it; 'rfla convert' does so "
    f"with an annotated set where rasterio is installed ({extra_needed('geo')})"
)
_TO_GREY = "gdal_translate -b 1 IN OUT rewrites it, as 'rfla convert' does with an annotated set"

if "OPENCV_LOG_LEVEL" not in os.environ:
    # A line for each unknown tag of a GeoTIFF otherwise; what cannot be read, we say ourselves.
    cv2.utils.logging.setLogLevel(0)


def read_image(
    path: str | Path,
    *,
    exif: bool = True,
    value_range: Range | None = None,
    remarks: list[str] | None = None,
) -> Image:
    """Read one image file as (H, W, 3) uint8 RGB.

    Args:
        path: Any name the file system takes, spaces and non-ASCII letters included.
        exif: Apply the EXIF orientation, as viewers and annotation tools do.
        value_range: Values that become 0 and 255 where a file has more than 8 bits; None takes
            them from the file.
        remarks: Is given what a user should know of the file: `MORE_IMAGES`, `FEW_BITS`,
            `DARK`, `NO_CONTRAST`, `BEYOND`.

    Raises:
        DataError: The file is missing, no regular file, empty, truncated, no image, or larger than
            `max_pixels`.
    """
    data = read_regular(path)
    remarks = [] if remarks is None else remarks
    header = header_of(path, data)
    if header.images > 1:
        remarks.append(MORE_IMAGES)
    return decode_image(path, data, header, exif=exif, value_range=value_range, remarks=remarks)


def highest_of_16_bits(path: str | Path) -> tuple[int, int] | None:
    """Return the highest value of an image of 16 bits that does not state its range.

    Returns:
        That value and the number of pixels; None for any other image.

    Raises:
        DataError: As in `read_image`.
    """
    with open_regular(path) as file:  # most files are of 8 bits, and some large
        start = file.read(_PNG_BITS.stop)
        file.seek(0)
        tiff = read_tiff_header(file) if is_tiff(start) else None
    if start.startswith(JPEG) or (start.startswith(PNG) and start[_PNG_BITS] != _SIXTEEN):
        return None
    if tiff is not None:
        if tiff.tags.get(BITS, 1) != 16 or tiff.stated_range is not None:
            return None
        refuse_too_large(tiff.width, tiff.height)
    data = read_regular(path)
    header = header_of(path, data)
    pixels = _decode(path, data, header, exif=True)
    if pixels.dtype != np.uint16:
        return None
    return highest_value(pixels, header.tiff), header.width * header.height


def header_of(path: str | Path, data: bytes) -> ImageHeader:
    """Return what the bytes of an image file state.

    Raises:
        DataError: No image, or one that is larger than `max_pixels`; names the file.
    """
    if not data:
        raise DataError(f"{path}: empty file")
    try:
        header = read_header(data)
        refuse_too_large(header.width, header.height, header.bits)
    except DataError as error:
        raise _unreadable(path, error, data) from None
    return header


def decode_image(
    path: str | Path,
    data: bytes | bytearray,
    header: ImageHeader,
    *,
    exif: bool = True,
    value_range: Range | None = None,
    remarks: list[str],
) -> Image:
    """Decode the bytes of an image file to (H, W, 3) uint8 RGB.

    Args:
        path: Whose bytes they are, for messages.
        data: The whole file.
        header: What it states; its size was checked.
        exif: As in `read_image`.
        value_range: As in `read_image`.
        remarks: As in `read_image`, without `MORE_IMAGES`.

    Raises:
        DataError: The file is truncated, or no image.
    """
    # of a TIFF both decoders turn the pixels, whatever they are asked
    undone = header.tiff is not None and not exif
    pixels = _decode(path, data, header, exif or undone)
    if undone:
        pixels = np.ascontiguousarray(header.orientation.stored(pixels))
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    limits = find_range(pixels, header.tiff, value_range)
    image = to_uint8(pixels, limits)
    if image.ndim == 2:
        image = image[..., None].repeat(3, axis=2)
    stated = value_range or (header.tiff.stated_range if header.tiff is not None else None)
    guessed = stated is None and pixels.dtype == np.uint16
    if guessed and limits[1] < 65535:
        remarks.append(FEW_BITS.format(bits=int(limits[1] + 1).bit_length() - 1))
    if uses_little(image):
        remarks.append(NO_CONTRAST)
    elif guessed and limits[1] == 65535 and image.max(initial=0) < 64:
        remarks.append(DARK)
    if limits == value_range and (pixels > limits[1]).mean() > HUNDREDTH:
        remarks.append(BEYOND)
    return image


def _decode(
    path: str | Path, data: bytes | bytearray, header: ImageHeader, exif: bool
) -> NDArray[Any]:
    """Decode an image to RGB of the number type that its file has: (H, W, 3), or (H, W) if grey."""
    if _is_truncated_jpeg(data):
        raise DataError(f"{path}: truncated JPEG (no end marker after {len(data):,} bytes)")
    if header.tiff is not None:
        pixels = _decode_bands(path, data, header.tiff.tags, exif)
    else:
        pixels = _decode_with_opencv(data, cv2.IMREAD_COLOR, exif)
    if pixels is None:
        return _decode_with_pillow(path, data, exif)
    if pixels.ndim == 2:
        return pixels if pixels.dtype != np.uint8 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.dtype != np.uint8:
        return np.ascontiguousarray(pixels[..., ::-1])
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels))


def _decode_bands(
    path: str | Path, data: bytes | bytearray, tags: Mapping[int, Any], exif: bool
) -> NDArray[Any] | None:
    """Decode a TIFF to (H, W, 3) BGR, or to (H, W) of more than 8 bits; None: OpenCV cannot.

    Raises:
        DataError: Bands that OpenCV and Pillow would misread in silence.
    """
    photometric, bands, bits = tags.get(PHOTOMETRIC, -1), tags.get(SAMPLES, 1), tags.get(BITS, 1)
    if bands >= 3 and photometric in _GREY:
        raise DataError(f"{path}: a TIFF of {bands} bands that are not marked as RGB; {_TO_RGB}")
    if bands > 4:
        raise DataError(f"{path}: a TIFF of {bands} bands; {_TO_RGB}")
    if bits > 8 and bands == 2:  # read as if each byte were a pixel
        raise DataError(f"{path}: a TIFF of 2 bands of {bits} bits; {_TO_GREY}")
    if bits == 16 and tags.get(SAMPLE_FORMAT) == _FLOAT:
        raise DataError(f"{path}: a TIFF of 16-bit floats; gdal_translate -ot Float32 IN OUT")
    if bands == 4 and photometric == _RGB:
        if bits <= 8:  # OpenCV would multiply the colours by the fourth band
            return np.ascontiguousarray(_decode_with_pillow(path, data, exif)[..., ::-1])
        pixels = _decode_with_opencv(data, cv2.IMREAD_UNCHANGED, exif)
        return None if pixels is None else pixels[..., :3]
    pixels = _decode_with_opencv(data, cv2.IMREAD_COLOR, exif)
    if pixels is None and bands == 1:  # which it does not repeat where it has more than 16 bits
        pixels = _decode_with_opencv(data, cv2.IMREAD_ANYCOLOR, exif)
    return pixels


def _decode_with_opencv(data: bytes | bytearray, colors: int, exif: bool) -> NDArray[Any] | None:
    """Decode to (H, W, 3) BGR, or (H, W) where `colors` allows it; None: OpenCV cannot."""
    flags = colors if colors == cv2.IMREAD_UNCHANGED else colors | cv2.IMREAD_ANYDEPTH
    if not exif:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def read_annotated(
    path: str | Path,
    stated: tuple[int, int],
    *,
    value_range: Range | None = None,
    remarks: list[str] | None = None,
) -> Image:
    """Read the picture that boxes were drawn on, from the size that their annotations state.

    The pixels as stored are taken where only they, without the EXIF orientation, have that size.

    Args:
        path: As in `read_image`.
        stated: Height and width that the annotations state, px.
        value_range: As in `read_image`.
        remarks: As in `read_image`.

    Returns:
        (H, W, 3) uint8 RGB, of the stated size or the same picture resized: boxes are to be scaled
        then.

    Raises:
        DataError: As in `read_image`; an image of another shape, for which the boxes cannot have
            been drawn.
    """
    image = read_image(path, value_range=value_range, remarks=remarks)
    found = image.shape[:2]
    if found != stated and found == stated[::-1]:
        plain = read_image(path, exif=False, value_range=value_range)
        image, found = (plain, stated) if plain.shape[:2] == stated else (image, found)
    if found != stated and not is_resized(stated, found):
        raise DataError(
            f"{path}: {found[1]} x {found[0]} px, "
            f"but its annotations state {stated[1]} x {stated[0]}"
        )
    return image


def is_resized(stated: tuple[int, int], found: tuple[int, int]) -> bool:
    """Tell whether two sizes in px have one shape, but for the pixel that a side was rounded to."""
    return abs(found[1] * stated[0] - found[0] * stated[1]) <= max(*stated, *found)


def image_size(path: str | Path, *, exif: bool = True) -> tuple[int, int]:
    """Return height and width of the image that `read_image` would read, from its header alone.

    Raises:
        DataError: The file is missing, no regular file, or not an image.
    """
    return _from_header(path, partial(read_size, exif=exif))


def image_orientation(path: str | Path) -> Orientation:
    """Return how the stored pixels of a file are shown, from its header alone.

    Raises:
        DataError: As in `image_size`.
    """
    return _from_header(path, read_orientation)


def _from_header(path: str | Path, read: Callable[[BinaryIO], Found]) -> Found:
    """Read something from the header of a file; an error names it."""
    with open_regular(path) as file:
        try:
            return read(file)
        except DataError as error:
            file.seek(0)
            raise _unreadable(path, error, file.read(1024)) from None


def require_whole(path: Path) -> None:
    """Refuse a JPEG or PNG whose end is missing, without decoding it.

    Its header says nothing of that.

    Raises:
        DataError: The file is cut off.
    """
    with open_regular(path) as file:
        start = file.read(8)
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - _TAIL, 0))
        tail = file.read()
    if start.startswith(JPEG) and _JPEG_END not in tail and _is_truncated_jpeg(read_regular(path)):
        raise DataError(f"{path}: truncated JPEG (no end marker)")
    if start == PNG and _PNG_END not in tail and _PNG_END not in read_regular(path):
        raise DataError(f"{path}: truncated PNG (no end)")


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
    write_atomically(path, data.tobytes(), flush=False)


def _is_truncated_jpeg(data: bytes | bytearray) -> bool:
    # OpenCV fills the missing part with grey and says nothing. An embedded thumbnail has an end
    # marker of its own, but in the first half of the file.
    return data.startswith(JPEG) and data.rfind(_JPEG_END) < len(data) // 2


def _decode_with_pillow(path: str | Path, data: bytes | bytearray, exif: bool) -> NDArray[Any]:
    """Decode what OpenCV cannot: GIF, some compressions of TIFF, odd colour spaces."""
    try:
        with PillowImage.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if exif else image
            if upright.mode in ("I", "F") or upright.mode.startswith("I;"):
                return np.asarray(upright)
            return np.asarray(upright.convert("RGB"), np.uint8).copy()
    except Exception as error:  # Pillow's decoders raise what they like on hostile bytes
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: Exception, head: bytes | None = None) -> DataError:
    """Return an error about a file, from one that does not name it.

    Args:
        path: The file.
        error: What is wrong.
        head: How the file begins, where it may be a web page or the like.
    """
    if isinstance(error, TooLargeError):
        return TooLargeError(f"{path}: {error}")
    foreign = foreign_content(head[:1024]) if head is not None else None
    if foreign:
        return DataError(f"{path}: not an image but {foreign}")
    return DataError(f"{path}: not a readable image ({complaint(error)})")
