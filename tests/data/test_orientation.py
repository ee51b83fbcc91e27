"""EXIF orientations by hand, and one frame for pixels, windows, masks and places on earth."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.data.georeference import read_georeference
from rfla.data.images import image_orientation, image_size, read_image
from rfla.data.orientation import ORIENTATIONS
from rfla.data.scenes import RasterScene, open_scene, read_valid

# What is stored where [[1, 2, 3], [4, 5, 6]] is shown, by the number of the tag.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}
EVERY = pytest.mark.parametrize("number", range(1, 9))


@EVERY
def test_by_hand(number: int) -> None:
    orientation, stored = ORIENTATIONS[number], np.array(STORED[number])
    assert orientation.shown(stored).tolist() == STORED[1]
    assert orientation.stored(np.array(STORED[1])).tolist() == STORED[number]
    assert orientation.sides(*stored.shape[::-1]) == (3, 2)
    x1, y1, x2, y2 = orientation.stored_window((1, 0, 3, 1), 3, 2)
    assert orientation.shown(stored[y1:y2, x1:x2]).tolist() == [[2, 3]]


def shown_picture() -> np.ndarray:
    """(40, 60, 3) in which no two parts are alike."""
    return np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)


def stored_as(shown: np.ndarray, number: int) -> np.ndarray:
    """Store pixels so that they are shown as given."""
    return np.ascontiguousarray(ORIENTATIONS[number].stored(shown))


@EVERY
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_files_are_shown(tmp_path: Path, number: int, suffix: str) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = number
    path = tmp_path / f"a.{suffix}"
    stored = stored_as(shown_picture(), number)
    lossless = {"lossless": True} if suffix == "webp" else {}
    PillowImage.fromarray(stored).save(path, exif=exif, **lossless)
    assert np.array_equal(read_image(path), shown_picture())
    assert image_size(path) == (40, 60)
    assert image_size(path, exif=False) == stored.shape[:2]
    assert np.array_equal(read_image(path, exif=False), stored)
    assert image_orientation(path) == ORIENTATIONS[number]


@EVERY
def test_exif_behind_the_pixels_of_a_png(tmp_path: Path, number: int) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = number
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    whole = cv2.imencode(".png", stored_as(shown_picture(), number)[..., ::-1])[1].tobytes()
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "a.png"
    path.write_bytes(whole[:-12] + late + whole[-12:])
    assert np.array_equal(read_image(path), shown_picture()) and image_size(path) == (40, 60)


@pytest.mark.parametrize("what", [b"", b"no EXIF at all", b"II*\0\xff\xff\xff\xff"])
def test_exif_that_says_nothing_turns_nothing(tmp_path: Path, what: bytes) -> None:
    chunk = b"eXIf" + what
    whole = cv2.imencode(".png", shown_picture()[..., ::-1])[1].tobytes()
    with_exif = struct.pack(">I", len(what)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    for at in (33, -12):  # behind the header, and behind the pixels
        path = tmp_path / f"{at}.png"
        path.write_bytes(whole[:at] + with_exif + whole[at:])
        assert image_size(path) == (40, 60) == read_image(path).shape[:2]


@EVERY
@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_colours_that_gdal_turns_by_itself(tmp_path: Path, number: int, mode: str) -> None:
    pytest.importorskip("rasterio")
    exif = PillowImage.Exif()
    exif[0x0112] = number
    path = tmp_path / "a.tif"
    bands = np.repeat(shown_picture()[..., :1], 4 if mode == "CMYK" else 3, axis=2)
    PillowImage.fromarray(stored_as(bands, number), mode).save(path, exif=exif)
    expected = read_image(path)
    assert expected.shape == (40, 60, 3)
    with open_scene(path) as scene:
        assert np.array_equal(scene.read((5, 3, 47, 20)), expected[3:20, 5:47])


def set_orientation(path: Path, number: int) -> None:
    """Add the tag to a TIFF of little-endian order: its directory is written again at the end."""
    data = bytearray(path.read_bytes())
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    entries = [bytes(data[offset + 2 + 12 * i :][:12]) for i in range(count)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, number, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    data += b"\0" * (len(data) % 2)
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(data)


@EVERY
def test_windows_masks_and_places_of_a_raster(
    tmp_path: Path, number: int, write_geotiff: Callable[..., None]
) -> None:
    import rasterio

    path, shown = tmp_path / "a.tif", shown_picture() // 2 + 1
    shown[:, :9] = 0  # no data on the left
    write_geotiff(path, stored_as(shown, number).transpose(2, 0, 1))
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = 0
    plain = read_georeference(path)
    set_orientation(path, number)
    assert np.array_equal(read_image(path), shown)
    with open_scene(path) as scene:
        assert isinstance(scene, RasterScene) and (scene.width, scene.height) == (60, 40)
        assert np.array_equal(scene.read((5, 3, 47, 20)), shown[3:20, 5:47])
        valid = scene.valid((5, 3, 47, 20))
        assert valid is not None and np.array_equal(valid, (shown > 0).any(axis=2)[3:20, 5:47])
        assert scene.reduced(30).shape == (20, 30, 3)
    mask = read_valid(path)
    assert mask is not None and np.array_equal(mask, (shown > 0).any(axis=2))

    # The middle of the pixel in row 7, column 11 is where GDAL has that pixel.
    places = np.zeros((40, 60), bool)
    places[7, 11] = True
    row, column = np.argwhere(stored_as(places, number))[0]
    place = read_georeference(path)
    assert plain is not None and place is not None and place.crs == plain.crs
    expected = plain.to_raster(np.array([(column + 0.5, row + 0.5)]))
    np.testing.assert_allclose(place.to_raster(np.array([(11.5, 7.5)])), expected, atol=1e-6)
