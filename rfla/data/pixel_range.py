"""Pixels of more than 8 bits -> 8 bits: from which range of values.

Shapes: pixels are (H, W) or (H, W, 3) of any number type.

What a file states decides, else what its values show. Files of 16 bits hold 8, 12 or 16 bits in
practice (a sensor of 12 bits fills a sixteenth of the type and would look black): the least of
those that holds all values of the image is taken; a range that is given holds for all images. Other
numbers are shares (0 to 1), grey levels (0 to 255), or in units of their own: then from the 0.1 to
the 99.9 percentile.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.data.tiff import TiffHeader

if TYPE_CHECKING:
    from rfla.cfg.model_schema import NormalizeConfig

Range = tuple[float, float]


class Range16(NamedTuple):
    """A range for the images of 16 bits that do not state their own; others keep theirs."""

    low: float
    high: float


_BITS_IN_16 = (8, 12, 16)
_PERCENTILES = (0.1, 99.9)
_BLOCK = 1 << 20  # numbers that are scaled at once
_SAMPLE = 1 << 20  # pixels that percentiles are taken of
HUNDREDTH = 0.01


def range_of(normalize: "NormalizeConfig") -> Range | None:
    """Return the range of settings: for all files, or for those of 16 bits; None without either."""
    if normalize.range is not None:
        return normalize.range
    return Range16(*normalize.range_16) if normalize.range_16 is not None else None


def find_range(
    pixels: NDArray[Any], tiff: TiffHeader | None = None, given: Range | None = None
) -> Range:
    """Return the values that become 0 and 255.

    Args:
        pixels: Of 16 bits, or of another type wider than 8 bits.
        tiff: Its tags, where the file is a TIFF.
        given: A range for all images, or a `Range16`.
    """
    known = known_range(pixels.dtype, tiff, given)
    if known is not None:
        return known
    if pixels.dtype == np.uint16:
        highest = highest_value(pixels, tiff)
        bits = next(bits for bits in _BITS_IN_16 if highest < 1 << bits)
        return 0.0, float((1 << bits) - 1)
    if tiff is not None and tiff.statistics is not None:
        return tiff.statistics
    return _range_of_values(pixels, tiff.nodata if tiff is not None else None)


def known_range(
    kind: "np.dtype[Any]", tiff: TiffHeader | None, given: Range | None
) -> Range | None:
    """Return the range of an image of this number type if its values need not be looked at.

    Arguments as in `find_range`.
    """
    if given is not None and not isinstance(given, Range16):
        return given
    if tiff is not None and tiff.stated_range is not None:
        return tiff.stated_range
    return given if kind == np.uint16 else None


def highest_value(pixels: NDArray[np.uint16], tiff: TiffHeader | None) -> int:
    """Return the highest value of the pixels that hold data, 0 where none does."""
    nodata = tiff.nodata if tiff is not None else None
    if nodata is not None:
        pixels = pixels[pixels != nodata]
    return int(pixels.max(initial=0))


def _range_of_values(pixels: NDArray[Any], nodata: float | None) -> Range:
    values = pixels.reshape(-1)[:: max(pixels.size // _SAMPLE, 1)].astype(np.float64)
    values = values[np.isfinite(values) & (values != nodata)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    for usual in (1.0, 255.0):
        if low >= 0 and high <= usual:
            return 0.0, usual
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return (low, high) if low < high else (low, low + 1.0)


def to_uint8(pixels: NDArray[Any], limits: Range) -> NDArray[np.uint8]:
    """Return the pixels in 8 bits: `limits` become 0 and 255, values beyond are clipped.

    What is no number becomes 0. Ranges of whole bits are shifted: 16 bits are divided by 256.
    """
    low, high = limits
    bits = int(high + 1).bit_length() - 1 if high < 1 << 16 else 0
    if pixels.dtype == np.uint16 and low == 0 and bits >= 8 and high == (1 << bits) - 1:
        return np.asarray(np.minimum(pixels >> (bits - 8), 255), np.uint8)
    image = np.empty(pixels.shape, np.uint8)
    rows = max(_BLOCK // max(pixels[:1].size, 1), 1)
    for start in range(0, len(pixels), rows):  # so that no copy of all is held in floats
        block = pixels[start : start + rows].astype(np.float32)
        scaled = (block - np.float32(low)) * np.float32(255 / (high - low))
        image[start : start + rows] = np.clip(np.nan_to_num(scaled, nan=0.0) + 0.5, 0, 255)
    return image


def uses_little(image: NDArray[np.uint8]) -> bool:
    """Tell whether an 8-bit image uses less than a hundredth of its range, as a black one does."""
    return bool(int(image.max(initial=0)) - int(image.min(initial=255)) < 255 * HUNDREDTH)
