"""Large pictures read by windows, so that a GeoTIFF scene is never held in memory.

Windows are x1, y1, x2, y2 in px of the picture; pixels are (h, w, 3) uint8 RGB.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rfla.data.image_header import refuse_too_large
from rfla.data.images import Image, image_orientation, image_size, read_image, require_whole
from rfla.data.orientation import AS_STORED, Orientation
from rfla.data.pixel_range import (
    Range,
    Range16,
    find_range,
    highest_value,
    known_range,
    to_uint8,
)
from rfla.data.tiff import PHOTOMETRIC, TiffHeader, is_tiff, read_tiff_header
from rfla.data.tiles import Window
from rfla.errors import DataError
from rfla.files import open_regular

TIFF = frozenset({".tif", ".tiff"})
# GDAL's drivers of images, by how their files begin. Files of others (VRT) can name other files and
# addresses, so GDAL is never left to choose.
DRIVERS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"BM": "BMP",
}
# bytes of decoded blocks that GDAL keeps; its default of 5 % of the memory would hold whole scenes
CACHE = 128_000_000
# px: scenes of any format from this size on are read by windows where rasterio is there
BY_WINDOWS = 100_000_000
REDUCED = "of more bands or bits than 3 x 8: first three bands written as PNG"
_PLAIN_COLOURS = (-1, 0, 1, 2)  # photometric interpretations: grey either way, and RGB
_GLANCE = 1024  # px: sides of the reduced picture from which a range of values is found


class Scene(Protocol):
    """A picture that can be read by windows.

    Attributes:
        path: The file.
        width: In px.
        height: In px.
        rewritten: Why the file cannot be used as it is (`read_image` would read something else), or
            "".
    """

    path: Path
    width: int
    height: int
    rewritten: str

    def read(self, window: Window) -> Image:
        """Return (h, w, 3) uint8 RGB of a window inside the picture."""
        ...


class WholeScene:
    """A picture that is decoded once, at its first window.

    With `exif` False its pixels as they are stored.

    Raises:
        DataError: The file is missing, no image, or cut off.
    """

    def __init__(self, path: Path, exif: bool = True, value_range: Range | None = None) -> None:
        self.path, self.exif, self._range = path, exif, value_range
        self.height, self.width = image_size(path, exif=exif)
        require_whole(path)
        self.rewritten = (
            ""
            if exif
            else "annotated before their EXIF orientation: pixels as stored written as PNG"
        )
        self._image: Image | None = None

    def read(self, window: Window) -> Image:
        """Return (h, w, 3) uint8 RGB of a window inside the picture."""
        if self._image is None:
            self._image = read_image(self.path, exif=self.exif, value_range=self._range)
        x1, y1, x2, y2 = window
        return self._image[y1:y2, x1:x2]


class RasterScene:
    """A raster whose windows are read from disk: only the blocks that a window touches are decoded.

    Bands 1 to 3 are red, green, blue; one or two bands are grey. More than 8 bits become 8 as in
    `read_image`, all windows from one range of values. Windows are those of the picture as shown,
    though GDAL knows no EXIF orientation.
    """

    def __init__(
        self,
        path: Path,
        dataset: Any,
        value_range: Range | None = None,
        orientation: Orientation = AS_STORED,
    ) -> None:
        self.path = path
        self._orientation = orientation
        self.width, self.height = orientation.sides(int(dataset.width), int(dataset.height))
        self._dataset = dataset
        self._bands = (1, 2, 3) if dataset.count >= 3 else (1, 1, 1)
        known = (dataset.count, _first_band(dataset)) in ((1, "gray"), (3, "red"))
        eight_bits = str(dataset.dtypes[0]) == "uint8"
        self.rewritten = "" if known and eight_bits else REDUCED
        if "complex" in str(dataset.dtypes[0]):
            raise DataError(f"{path}: pixels are complex numbers, which have no colour")
        self._range = None if eight_bits else self._find_range(value_range)

    def read(self, window: Window) -> Image:
        """Return (h, w, 3) uint8 RGB of a window inside the picture."""
        return self._as_shown(self._read(window=self._stored(window)))

    def valid(self, window: Window) -> NDArray[np.bool_] | None:
        """Return (h, w) where a window has data, None where the file says it has everywhere."""
        return self._valid(window=self._stored(window))

    def all_valid(self) -> NDArray[np.bool_] | None:
        """Return (H, W) where the whole picture has data, as `valid`."""
        return self._valid()

    def _valid(self, **how: Any) -> NDArray[np.bool_] | None:
        bands = self._dataset.mask_flag_enums
        if all("all_valid" in {flag.name for flag in flags} for flags in bands):
            return None
        try:
            return self._orientation.shown(np.asarray(self._dataset.dataset_mask(**how)) > 0)
        except Exception:  # rasterio wraps GDAL's many errors; the pixels are read all the same
            return None

    def reduced(self, side: int) -> Image:
        """Return the whole picture with a long side of at most `side` px, (h, w, 3) uint8 RGB."""
        factor = max(self.width, self.height, side) / side
        height, width = self._dataset.height, self._dataset.width
        shape = (3, max(round(height / factor), 1), max(round(width / factor), 1))
        return self._as_shown(self._read(out_shape=shape))

    def _stored(self, window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return rows and columns of the stored pixels that a window shows."""
        x1, y1, x2, y2 = self._orientation.stored_window(window, self.width, self.height)
        return (y1, y2), (x1, x2)

    def _as_shown(self, bands: NDArray[Any]) -> Image:
        """Turn stored pixels (3, h, w) into a picture (h, w, 3)."""
        pixels = self._orientation.shown(bands.transpose(1, 2, 0))
        if self._range is not None:
            pixels = to_uint8(pixels, self._range)
        return np.ascontiguousarray(pixels, np.uint8)

    def _find_range(self, given: Range | None) -> Range:
        """Return the range of values of the whole scene: known, or from a reduced copy."""
        tiff = _tiff_header(self.path)
        known = known_range(np.dtype(self._dataset.dtypes[0]), tiff, given)
        return known if known is not None else find_range(self._glance(), tiff)

    def highest_of_16_bits(self) -> int | None:
        """The highest value of a reduced copy; None of other types and where a range is stated."""
        tiff = _tiff_header(self.path)
        if str(self._dataset.dtypes[0]) != "uint16" or (tiff is not None and tiff.stated_range):
            return None
        return highest_value(self._glance(), tiff)

    def _glance(self) -> NDArray[Any]:
        """Return a reduced copy of the bands (3, h, w), in the values of the file."""
        shape = (3, min(self._dataset.height, _GLANCE), min(self._dataset.width, _GLANCE))
        return self._read(out_shape=shape)

    def _read(self, **how: Any) -> np.ndarray:
        try:
            return np.asarray(self._dataset.read(self._bands, **how))
        except Exception as error:  # rasterio wraps GDAL's many errors
            where = f"window {how['window']}" if "window" in how else "the picture"
            raise DataError(f"{self.path}: {where} cannot be read ({str(error)[:120]})") from None


def read_valid(path: Path) -> NDArray[np.bool_] | None:
    """Return (H, W) where a TIFF has data, as its nodata value, alpha band or mask say.

    None where it says that it has everywhere, for other files, and without rasterio.
    """
    if rasterio_or_none() is None or path.suffix.lower() not in TIFF:
        return None
    try:
        with open_scene(path) as scene:
            return scene.all_valid() if isinstance(scene, RasterScene) else None
    except DataError:  # `read_image` may read what GDAL does not, and says what is wrong else
        return None


def highest_of_scene(path: Path) -> tuple[int, int] | None:
    """Return what `rfla.data.images.highest_of_16_bits` does, of a scene read by windows.

    Its highest value is that of a reduced copy.
    """
    with open_scene(path, Range16(0.0, 1.0)) as scene:  # any: none is looked for then
        highest = scene.highest_of_16_bits() if isinstance(scene, RasterScene) else None
        return None if highest is None else (highest, scene.width * scene.height)


def read_by_windows(path: Path) -> bool:
    """Whether a file is so large that it is read by windows, and can be."""
    if rasterio_or_none() is None:
        return False
    try:
        height, width = image_size(path)
    except DataError:
        return False
    return height * width >= BY_WINDOWS


@contextmanager
def open_scene(path: Path, value_range: Range | None = None) -> Iterator[Scene]:
    """Open a picture for reading by windows.

    TIFF, and any format from 100 Mpx on, go through rasterio where it is there.

    Args:
        path: The file.
        value_range: As in `read_image`.

    Raises:
        DataError: It is no readable picture, or too large to be decoded whole and rasterio is not
            installed.
    """
    rasterio = rasterio_or_none()
    if rasterio is None:
        yield _decodable(WholeScene(path, value_range=value_range))
        return
    if path.suffix.lower() not in TIFF:
        whole = WholeScene(path, value_range=value_range)
        if whole.width * whole.height < BY_WINDOWS:
            yield whole
            return
    driver = _driver(path)
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        try:
            dataset = rasterio.open(path, driver=driver)
        except Exception as error:  # rasterio wraps GDAL's many errors
            raise DataError(f"{path}: not a readable image ({str(error)[:120]})") from None
        with dataset:
            orientation = image_orientation(path)
            # Some colours GDAL reads as RGBA, by libtiff, which turns them by itself in part.
            turned = orientation != AS_STORED and _photometric(path) not in _PLAIN_COLOURS
            if _first_band(dataset) == "palette" or turned:
                yield _decodable(WholeScene(path, value_range=value_range))
            else:
                yield RasterScene(path, dataset, value_range, orientation)


def _driver(path: Path) -> str:
    """Return GDAL's driver for an image file.

    Raises:
        DataError: No regular file, or no image.
    """
    with open_regular(path) as file:
        start = file.read(16)
    if is_tiff(start):
        return "GTiff"
    for magic, driver in DRIVERS.items():
        if start.startswith(magic):
            return driver
    raise DataError(f"{path}: not a readable image (no known format)")


def _tiff_header(path: Path) -> TiffHeader | None:
    """Return the tags of a TIFF; None for other files."""
    with open_regular(path) as file:
        return read_tiff_header(file) if is_tiff(file.read(4)) else None


def _photometric(path: Path) -> int:
    """Return how a TIFF says that its numbers are colours; -1 for other files."""
    tiff = _tiff_header(path)
    return int(tiff.tags.get(PHOTOMETRIC, -1)) if tiff is not None else -1


def _first_band(dataset: Any) -> str:
    """Return what the first band is: gray, red, palette, undefined, ..."""
    return str(dataset.colorinterp[0].name)


def _decodable(scene: WholeScene) -> WholeScene:
    """Return a scene that may be decoded whole.

    Raises:
        DataError: It is over the budget of pixels.
    """
    try:
        refuse_too_large(scene.width, scene.height)
    except DataError as error:
        raise DataError(f"{scene.path}: {error}") from None
    return scene


def rasterio_or_none() -> ModuleType | None:
    """Return the library of rasters; None where it is not installed."""
    try:
        import rasterio
    except ImportError:
        return None
    # Where on earth the picture lies does not matter here. The filter stays, since `catch_warnings`
    # in one thread would undo that of another.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    module: ModuleType = rasterio
    return module
