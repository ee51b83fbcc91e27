"""Cut large scenes and their boxes into tiles for training, without holding a GeoTIFF scene in memory.

Windows are x1, y1, x2, y2 in px of the scene. The last tile of a row or column is shifted inwards,
so that every tile has full size and none repeats another; a scene smaller than a tile is one tile
of its own size. What a tile cuts off is decided by the visible share of a box: at or above
`keep_visible` the visible part is the box, below it the visible part becomes an ignored region,
because its pixels are still there and are no background.
"""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rfla.data.formats.record import NO_CLASS, ImageRecord
from rfla.data.images import Image, image_size, read_image, require_whole
from rfla.errors import DataError

Window = tuple[int, int, int, int]

TIFF = frozenset({".tif", ".tiff"})
_BOMB = "decompression bomb"  # what Pillow calls a picture of 179 Mpx and more
# MB of decoded blocks that GDAL keeps; its default of 5 % of the memory would hold whole scenes
CACHE = 128
# px: scenes of any format from this size on are read by windows where rasterio is there
BY_WINDOWS = 100_000_000


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side: every `tile - overlap` px, the last one shifted inwards.

    >>> tile_starts(2000, 800, 200)
    [0, 600, 1200]
    >>> tile_starts(1500, 800, 200)
    [0, 600, 700]
    >>> tile_starts(500, 800, 200)
    [0]
    """
    if length <= tile:
        return [0]
    last = length - tile
    return [*range(0, last, tile - overlap), last]


def plan_windows(width: int, height: int, tile: int, overlap: int) -> list[Window]:
    """Return the windows of a scene, row by row."""
    return [
        (x, y, min(x + tile, width), min(y + tile, height))
        for y in tile_starts(height, tile, overlap)
        for x in tile_starts(width, tile, overlap)
    ]


def tile_name(file_name: str, window: Window) -> str:
    """Return the name of a tile: `{scene}__{x}_{y}.png`, in the directory of its scene."""
    path = PurePosixPath(file_name)
    return str(path.with_name(f"{path.stem}__{window[0]}_{window[1]}.png"))


def visible_shares(boxes: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Return the share of each box that lies in the window.

    For a box without area, whether its centre does.

    Args:
        boxes: (n, 4) xyxy px.
        window: Of the same image.

    Returns:
        (n,) between 0 and 1.
    """
    inside = _clip(boxes, window)
    sides = np.maximum(inside[:, 2:] - inside[:, :2], 0)
    whole = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area = whole.prod(axis=1)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    held = ((centres >= window[:2]) & (centres < window[2:])).all(axis=1)
    return np.where(area > 0, sides.prod(axis=1) / np.where(area > 0, area, 1), held)


def cut(record: ImageRecord, window: Window, keep_visible: float) -> ImageRecord:
    """Return the part of a record that a window shows, in px of the window.

    Ids are left out (a box can be in several tiles), the window is noted.

    Args:
        record: The whole scene.
        window: The tile.
        keep_visible: Share of a box, 0 to 1, from which its visible part stays an object.
    """
    shares = visible_shares(record.boxes, window)
    seen = np.flatnonzero(shares > 0)
    part, shares = record.select(seen), shares[seen]
    origin = np.array([window[0], window[1]] * 2, np.float64)
    part.boxes = _clip(part.boxes, window) - origin
    hidden = (shares < keep_visible - 1e-9) & (part.labels != NO_CLASS)
    part.ignore = part.ignore | hidden
    part.crowd = part.crowd | hidden
    part.attributes = _cut_attributes(part.attributes, shares >= 1 - 1e-9, origin)
    part.ids = np.full(len(part), -1, np.int64)
    part.image_id = None
    part.width, part.height = window[2] - window[0], window[3] - window[1]
    part.window = window
    part.file_name = tile_name(record.file_name, window)
    return part


def _cut_attributes(
    attributes: dict[str, NDArray[Any]], whole: NDArray[np.bool_], origin: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Shift polygons; a stated area or polygon holds only for a box that is whole."""
    result = dict(attributes)
    if "polygon" in result:
        result["polygon"] = np.where(
            whole[:, None], result["polygon"] - np.tile(origin[:2], 4), np.nan
        )
    if "area" in result:
        result["area"] = np.where(whole, result["area"], np.nan)
    return result


def _clip(boxes: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    low = np.array([window[0], window[1]] * 2, np.float64)
    high = np.array([window[2], window[3]] * 2, np.float64)
    return np.clip(boxes, low, high)


def keeps_empty(name: str, share: float) -> bool:
    """Decide whether a tile without objects stays: by its name alone, so that every run decides alike."""
    return zlib.crc32(name.encode()) < share * 2**32


class Scene(Protocol):
    """A picture that can be read by windows.

    Attributes:
        width: In px.
        height: In px.
        rewritten: Why the file cannot be used as it is (`read_image` would read something else), or
            "".
    """

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

    def __init__(self, path: Path, exif: bool = True) -> None:
        self.path, self.exif = path, exif
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
            self._image = read_image(self.path, exif=self.exif)
        x1, y1, x2, y2 = window
        return self._image[y1:y2, x1:x2]


class RasterScene:
    """A raster whose windows are read from disk: only the blocks that a window touches are decoded.

    Bands 1 to 3 are red, green, blue; one or two bands are grey. 16 bit are divided by 256, as
    `read_image` does.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path = path
        self.width, self.height = int(dataset.width), int(dataset.height)
        self._dataset = dataset
        self._bands = (1, 2, 3) if dataset.count >= 3 else (1, 1, 1)
        self._kind = str(dataset.dtypes[0])
        known = (dataset.count, _first_band(dataset)) in ((1, "gray"), (3, "red"))
        as_is = known and self._kind == "uint8"
        self.rewritten = (
            "" if as_is else "of more bands or bits than 3 x 8: first three bands written as PNG"
        )
        if self._kind not in ("uint8", "uint16"):
            raise DataError(
                f"{path}: pixels are {self._kind}; only 8 and 16 bit whole numbers can be cut into tiles"
            )

    def read(self, window: Window) -> Image:
        """Return (h, w, 3) uint8 RGB of a window inside the picture."""
        x1, y1, x2, y2 = window
        try:
            pixels = self._dataset.read(self._bands, window=((y1, y2), (x1, x2)))  # (3, h, w)
        except Exception as error:  # rasterio wraps GDAL's many errors
            raise DataError(
                f"{self.path}: window {window} cannot be read ({str(error)[:120]})"
            ) from None
        if self._kind == "uint16":
            pixels = pixels >> 8
        return np.ascontiguousarray(pixels.transpose(1, 2, 0), np.uint8)


@contextmanager
def open_scene(path: Path) -> Iterator[Scene]:
    """Open a picture for reading by windows: TIFF, and any format from 100 Mpx on, through rasterio where it is there.

    Raises:
        DataError: It is no readable picture, or too large to be decoded whole and rasterio is not
            installed.
    """
    rasterio = _rasterio()
    if rasterio is None:
        yield _whole(path)
        return
    whole = None if path.suffix.lower() in TIFF else _unless_huge(path)
    if whole is not None:
        yield whole
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        try:
            dataset = rasterio.open(path)
        except Exception as error:  # rasterio wraps GDAL's many errors
            raise DataError(f"{path}: not a readable image ({str(error)[:120]})") from None
        with dataset:
            yield _whole(path) if _first_band(dataset) == "palette" else RasterScene(path, dataset)


def _first_band(dataset: Any) -> str:
    """Return what the first band is: gray, red, palette, undefined, ..."""
    return str(dataset.colorinterp[0].name)


def _whole(path: Path) -> WholeScene:
    try:
        return WholeScene(path)
    except DataError as error:
        if _BOMB in str(error).lower():
            raise DataError(
                f"{path}: too large to be decoded whole; 'rfla[geo]' reads it by windows"
            ) from None
        raise


def _unless_huge(path: Path) -> WholeScene | None:
    """Return the scene, or None where it is to be read by windows."""
    try:
        scene = WholeScene(path)
    except DataError as error:
        if _BOMB in str(error).lower():
            return None
        raise
    return scene if scene.width * scene.height < BY_WINDOWS else None


def _rasterio() -> ModuleType | None:
    try:
        import rasterio
    except ImportError:
        return None
    # Nobody asked where on earth the picture is. For good, as `catch_warnings` in one thread undoes
    # that of another.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    module: ModuleType = rasterio
    return module
