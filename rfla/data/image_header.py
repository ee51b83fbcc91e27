"""What an image file states before a pixel is decoded: its size, and how many images it holds.

No decoder is started on a picture larger than `MAX_PIXELS`, whatever the file claims: 179 million
px, as Pillow has it, or what the key `max_pixels=` says.
"""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image as PillowImage

from rfla.data.orientation import AS_STORED, ORIENTATIONS, Orientation
from rfla.data.tiff import (
    BITS,
    ORIENTATION,
    TILE_HEIGHT,
    TILE_WIDTH,
    TiffHeader,
    is_tiff,
    read_tiff_header,
)
from rfla.errors import DataError, one_line
from rfla.files import open_regular
from rfla.sizes import MAX_PIXELS as DEFAULT_MAX_PIXELS

MAX_PIXELS = DEFAULT_MAX_PIXELS  # of this process; `set_max_pixels` changes it
# Formats that Pillow may try. Others would be more than images: EPS starts an interpreter.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how their files begin
# Start of frame: the markers C0 to CF, without those of tables, arithmetic coding and extensions.
_SIZES_OF_JPEG = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_TAIL = 8192  # bytes at the end of a PNG in which a late chunk of EXIF is looked for

# The budget is ours to check, and it says more than a warning does.
warnings.filterwarnings("ignore", category=PillowImage.DecompressionBombWarning)


class TooLargeError(DataError):
    """A picture over the budget of decoded pixels."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file states about its first image.

    Attributes:
        width: In px, as stored.
        height: In px, as stored.
        images: Pages of a TIFF, frames of an animation; 1 for all others.
        tiff: The tags of a TIFF, else None.
    """

    width: int
    height: int
    images: int = 1
    tiff: TiffHeader | None = None

    @property
    def orientation(self) -> Orientation:
        """How a TIFF is shown; of other files it is not here."""
        return _orientation(self.tiff.tags.get(ORIENTATION)) if self.tiff else AS_STORED

    @property
    def bits(self) -> int:
        """Bits of a number, where the file may have more than 16."""
        return int(self.tiff.tags.get(BITS, 1)) if self.tiff is not None else 8


def usual_suffix(path: Path) -> str:
    """Return the suffix of a file by how it begins; "" of formats that are rarely without one."""
    with open_regular(path) as file:
        start = file.read(8)
    if is_tiff(start):
        return ".tif"
    return ".png" if start == PNG else ".jpg" if start.startswith(JPEG) else ""


def set_max_pixels(pixels: int) -> None:
    """Set the largest picture, width times height, that this process decodes."""
    global MAX_PIXELS
    MAX_PIXELS = pixels
    # Pillow refuses twice its own limit; a user who raises ours wants the picture opened.
    PillowImage.MAX_IMAGE_PIXELS = max(pixels, PillowImage.MAX_IMAGE_PIXELS or 0)


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an image file.

    Raises:
        DataError: No format that is read, or a damaged header; the message does not name the file.
    """
    if data.startswith(PNG):
        return _png_header(data)
    if data.startswith(JPEG):
        return _jpeg_header(data)
    if is_tiff(data):
        return _tiff_header(io.BytesIO(data))
    return _pillow_header(io.BytesIO(data))


def read_size(file: BinaryIO, exif: bool) -> tuple[int, int]:
    """Return height and width of the image that an open file holds; no pixel is decoded.

    Args:
        file: At its beginning.
        exif: Exchange them where the EXIF orientation turns the picture.

    Raises:
        DataError: As in `read_header`.
    """
    width, height, orientation = _read_shape(file, exif)
    width, height = orientation.sides(width, height)
    return height, width


def read_orientation(file: BinaryIO) -> Orientation:
    """Return how the image that an open file holds is shown; as `read_size`."""
    return _read_shape(file, exif=True)[2]


def _read_shape(file: BinaryIO, exif: bool) -> tuple[int, int, Orientation]:
    """Return width and height as stored, and with `exif` how they are shown."""
    start = file.read(4)
    if is_tiff(start):
        header = _tiff_header(file)
        return header.width, header.height, header.orientation if exif else AS_STORED
    file.seek(0)
    try:
        with PillowImage.open(file, formats=FORMATS) as image:
            number = None
            if exif and image.format == "PNG":  # of which getexif() decodes the pixels
                number = _exif_of_png(image.info.get("exif"), file).get(ORIENTATION)
            elif exif and image.format in {"JPEG", "MPO", "WEBP"}:  # the others store none
                number = image.getexif().get(ORIENTATION)
            return *image.size, _orientation(number)
    except PillowImage.DecompressionBombError:  # too large for Pillow, but not for windows
        file.seek(0)
        header = read_header(file.read())
        return header.width, header.height, AS_STORED
    except Exception as error:  # Pillow's plugins raise what they like on hostile bytes
        raise DataError(complaint(error)) from None


def _orientation(number: object) -> Orientation:
    """Return the orientation of a number, which a file may have wrong."""
    return ORIENTATIONS.get(number, AS_STORED) if isinstance(number, int) else AS_STORED


def _exif_of_png(early: bytes | None, file: BinaryIO) -> PillowImage.Exif:
    """Read the EXIF of a PNG, which may stand before its pixels or behind them."""
    exif = PillowImage.Exif()
    if early is None:
        file.seek(max(file.seek(0, io.SEEK_END) - _TAIL, 0))
        tail = file.read()
        at = tail.rfind(b"eXIf")
        if at >= 4:
            (length,) = struct.unpack_from(">I", tail, at - 4)
            chunk, end = tail[at : at + 4 + length], tail[at + 4 + length : at + 8 + length]
            if end == struct.pack(">I", zlib.crc32(chunk)):  # no pixels that look like one
                early = chunk[4:]
    if early:
        with suppress(Exception):  # decoders take no notice of EXIF that they cannot read either
            exif.load(early)
    return exif


def is_too_large(width: int, height: int, bits: int = 8) -> bool:
    """Tell whether a picture is over the budget of decoded pixels; see `refuse_too_large`."""
    return width * height * max(bits, 16) > MAX_PIXELS * 16


def refuse_too_large(width: int, height: int, bits: int = 8) -> None:
    """Refuse a picture over the budget of decoded pixels.

    Args:
        width: In px.
        height: In px.
        bits: Of a number. Pixels of more than 16 bits take more of the budget, as of the memory.

    Raises:
        TooLargeError: With the way out.
    """
    if is_too_large(width, height, bits):
        of_bits = f" of {bits} bits" if bits > 16 else ""
        raise TooLargeError(
            f"{width} x {height} px{of_bits} are more than max_pixels={MAX_PIXELS}: raise that, "
            "or cut the picture with 'rfla convert ... tile=800', which reads it by windows "
            "where rasterio is installed"
        )


def complaint(error: Exception) -> str:
    """Return why a decoder cannot read a file, in one line."""
    text = one_line(error)
    # Pillow adds the address of its buffer to these words.
    return "no known format" if text.startswith("cannot identify image file") else text


def _png_header(data: bytes) -> ImageHeader:
    """Read a PNG, chunk by chunk: a decoder may reserve whatever a length claims."""
    at, frames = len(PNG), 1
    while data[at + 4 : at + 8] != b"IEND":
        if at + 12 > len(data):
            raise DataError("truncated PNG")
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            raise DataError(f"truncated PNG: a chunk of {length:,} bytes ends after the file")
        if data[at + 4 : at + 8] == b"acTL" and length == 8:
            (frames,) = struct.unpack_from(">I", data, at + 8)
        at += 12 + length
    if data[12:16] != b"IHDR" or len(data) < 24:
        raise DataError("a PNG without a header")
    width, height = struct.unpack_from(">II", data, 16)
    return ImageHeader(width, height, max(frames, 1))


def _jpeg_header(data: bytes) -> ImageHeader:
    """Find the first start of frame of a JPEG."""
    at = 2
    while at + 9 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes, or what a careless writer left
            at += 1
        elif marker in _SIZES_OF_JPEG:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return ImageHeader(width, height)
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise DataError("a JPEG that states no size")


def _tiff_header(file: BinaryIO) -> ImageHeader:
    return header_of_tiff(read_tiff_header(file))


def header_of_tiff(header: TiffHeader | None) -> ImageHeader:
    """Return what a page of a TIFF states.

    Raises:
        DataError: Damaged tags, or tiles larger than `max_pixels`.
    """
    if header is None or not header.width or not header.height:
        raise DataError("a TIFF with damaged tags")
    refuse_too_large(header.tags.get(TILE_WIDTH, 1), header.tags.get(TILE_HEIGHT, 1))
    return ImageHeader(header.width, header.height, header.pages, header)


def _pillow_header(file: BinaryIO) -> ImageHeader:
    try:
        with PillowImage.open(file, formats=FORMATS) as image:
            return ImageHeader(*image.size, getattr(image, "n_frames", 1))
    except PillowImage.DecompressionBombError:
        raise TooLargeError(
            f"more pixels than max_pixels={MAX_PIXELS}; raise that to read it"
        ) from None
    except Exception as error:  # Pillow's plugins raise what they like on hostile bytes
        raise DataError(complaint(error)) from None
