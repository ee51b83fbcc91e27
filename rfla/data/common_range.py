"""One range of values for all images of 16 bits of a data set.

A range from each image alone (`rfla.data.pixel_range`) would show the same value darker in an image
that has a higher one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.images import highest_of_16_bits
from rfla.data.pixel_range import Range16
from rfla.data.scenes import highest_of_scene, rasterio_or_none, read_by_windows
from rfla.errors import DataError

LOOKED_AT = 100  # images, spread over the set
ENOUGH = 400_000_000  # pixels, after which no further image is looked at


@dataclass(frozen=True)
class CommonRange:
    """What the images of 16 bits of a data set hold.

    Attributes:
        highest: The highest value that was seen.
        images: How many images of 16 bits were looked at.
    """

    highest: int
    images: int

    @property
    def limits(self) -> Range16:
        """The values that become 0 and 255: of the least number of bits that holds all, from 8."""
        return Range16(0.0, float((1 << max(self.highest.bit_length(), 8)) - 1))

    def line(self, key: str = "normalize.range") -> str:
        """Say which values are taken, and which setting takes others."""
        return f"{self.images} {self.what(key)}"

    def what(self, key: str = "normalize.range") -> str:
        """The line without its number."""
        return (
            f"16-bit images looked at: the highest value is {self.highest:,}, so 0 to "
            f"{self.limits.high:,.0f} become 0 to 255 in all; {key}= sets other values"
        )


def with_common_range(index: Annotations) -> Annotations:
    """Return the split with the range that a training on it would take; one that it has stands."""
    found = find_common_range(index.paths) if index.value_range is None else None
    return index if found is None else replace(index, value_range=found.limits)


def spread(count: int) -> NDArray[np.int64]:
    """Return up to `LOOKED_AT` rows of `count`, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64)


def find_common_range(paths: Iterable[str]) -> CommonRange | None:
    """Look at some images of a set, evenly spread; None where none has 16 bits of unstated range.

    Args:
        paths: The image files; those that cannot be read are passed over.
    """
    files = list(dict.fromkeys(str(path) for path in paths))
    highest, pixels = [], 0
    # in a mixed order: of large scenes the first ones are enough
    for place in np.random.default_rng(0).permutation(spread(len(files))):
        try:
            found = _highest_of_16_bits(files[place])
        except DataError:  # named when it is loaded
            continue
        if found is not None:
            highest.append(found[0])
            pixels += found[1]
        if pixels > ENOUGH:
            break
    return CommonRange(max(highest), len(highest)) if highest else None


def _highest_of_16_bits(file: str) -> tuple[int, int] | None:
    if read_by_windows(Path(file)):
        return highest_of_scene(Path(file))
    try:
        return highest_of_16_bits(file)
    except DataError:  # bands that only rasterio reads, as `convert` does; or no image at all
        if rasterio_or_none() is None:
            raise
        return highest_of_scene(Path(file))
