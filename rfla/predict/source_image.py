"""What a source is made of: anything that yields images, and the images that it yields.

Every source has `name`, `relative` (how its outputs are named) and `images`. An image file and an
array are sources of themselves; a video, a camera, an address and a file of pages yield many.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from rfla.data.images import MORE_IMAGES, read_image
from rfla.data.pages import holds_several, read_pages
from rfla.data.pixel_range import Range, find_range, to_uint8
from rfla.data.scenes import read_by_windows
from rfla.errors import DataError
from rfla.names import Pages

Image = np.ndarray[Any, np.dtype[Any]]


class Reading(NamedTuple):
    """How sources of several images are read.

    Attributes:
        stride: Of videos and animations, take every Nth frame.
        pages: Of a file with several pages or frames, all or the first.
        value_range: Values that become 0 and 255 in files of more than 8 bits.
    """

    stride: int = 1
    pages: Pages = "all"
    value_range: Range | None = None


class Source(Protocol):
    """Something to run on."""

    @property
    def name(self) -> str:
        """A path, an address, or a made-up name."""
        ...

    @property
    def relative(self) -> Path:
        """Its place below what was given: how it is named in outputs, with its suffix."""
        ...

    def expected(self, how: Reading) -> int:
        """Return how many images there will be, as far as that is cheap to know; for the bar."""
        ...

    def images(self, how: Reading) -> Iterator["SourceImage"]:
        """Yield its images, one after the other; none that was yielded is kept.

        What cannot be read is an image too: its `read` says why.
        """
        ...


@dataclass(frozen=True)
class SourceImage:
    """One image to run on: a file that is read when it is needed, or pixels.

    Attributes:
        name: The file's path, or a made-up name for an array.
        relative: Its place below the source: how it is named in outputs, with its suffix.
        pixels: (H, W, 3) RGB, uint8 or of an array uint16 too, for an array or a frame; None for a
            file.
        frame: Number of the frame or page in its file, from 0; None for a single image.
        seconds: When a frame is shown; None for pages and single images.
        remarks: What a user should know of the pixels.
        failure: Why there are no pixels.
    """

    name: str
    relative: Path
    pixels: Image | None = None
    frame: int | None = None
    seconds: float | None = None
    remarks: tuple[str, ...] = ()
    failure: DataError | None = None

    @property
    def file(self) -> Path | None:
        """The file that it is the whole of; None for pixels, frames, and what cannot be read."""
        is_file = self.pixels is None and self.failure is None
        return Path(self.name) if is_file else None

    @property
    def by_windows(self) -> bool:
        """Whether it is too large to be decoded whole, and rasterio is there to read parts."""
        return self.file is not None and read_by_windows(self.file)

    def read(self, value_range: Range | None = None, remarks: list[str] | None = None) -> Image:
        """Return (H, W, 3) uint8 RGB.

        Args:
            value_range: As in `read_image`.
            remarks: As in `read_image`.

        Raises:
            DataError: The file is not a readable image.
        """
        if self.failure is not None:
            raise self.failure
        if self.pixels is None:
            return read_image(self.name, value_range=value_range, remarks=remarks)
        if remarks is not None:
            remarks += self.remarks
        if self.pixels.dtype == np.uint16:
            return to_uint8(self.pixels, find_range(self.pixels, given=value_range))
        return self.pixels

    def expected(self, how: Reading) -> int:
        """Return 1."""
        return 1

    def images(self, how: Reading) -> Iterator["SourceImage"]:
        """Yield this image, or the pages and frames of its file."""
        path = Path(self.name)
        if self.file is None or how.pages == "first" or not holds_several(path):
            yield self
        elif self.by_windows:  # of a scene the first page alone
            yield replace(self, remarks=(MORE_IMAGES,))
        else:
            yield from pages_of(self, path, how)


def pages_of(source: Source, path: Path, how: Reading) -> Iterator[SourceImage]:
    """Yield the pages or frames of a file, as images of a source."""
    try:
        for page in read_pages(path, how.value_range, how.stride):
            yield picture(source, page.pixels, page.index, page.seconds, page.remarks)
    except DataError as error:
        yield picture(source, error)


def picture(
    source: Source,
    pixels: Image | DataError,
    frame: int | None = None,
    seconds: float | None = None,
    remarks: tuple[str, ...] = (),
) -> SourceImage:
    """Return an image of a source: its pixels, or why there are none."""
    failure, good = (pixels, None) if isinstance(pixels, DataError) else (None, pixels)
    return SourceImage(source.name, source.relative, good, frame, seconds, remarks, failure)
