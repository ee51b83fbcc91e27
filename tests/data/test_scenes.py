"""Rasters are read by windows, from one range of values, and are nothing but images."""

import os

import numpy as np
import pytest

from rfla.data.georeference import read_gsd
from rfla.data.images import write_image
from rfla.data.pixel_range import Range16
from rfla.data.scenes import RasterScene, open_scene
from rfla.errors import DataError


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)


def test_png_windows(tmp_path, noise):
    write_image(tmp_path / "a b ü.png", noise)
    with open_scene(tmp_path / "a b ü.png") as scene:
        assert (scene.width, scene.height) == (120, 90)
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])


def test_geotiff_is_read_by_windows_alone(tmp_path, noise, monkeypatch, write_geotiff):
    infrared = np.full((1, 90, 120), 7, np.uint8)
    write_geotiff(tmp_path / "four bands.tif", np.concatenate([noise.transpose(2, 0, 1), infrared]))
    monkeypatch.setattr(
        "rfla.data.scenes.read_image", lambda path: pytest.fail("the whole scene was read")
    )
    with open_scene(tmp_path / "four bands.tif") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])
        assert np.array_equal(scene.read((0, 0, 120, 90)), noise)


def test_16_bit_grey_and_float_geotiff(tmp_path, noise, write_geotiff):
    deep = noise.transpose(2, 0, 1).astype(np.uint16) * 256 + 5
    grey, shares = noise[None, :, :, 0], noise[None, :, :, 0] / np.float32(255)
    write_geotiff(tmp_path / "deep.tif", deep, "uint16")
    write_geotiff(tmp_path / "grey.tif", grey)
    write_geotiff(tmp_path / "levels.tif", grey, "float32")
    write_geotiff(tmp_path / "shares.tif", shares, "float64")
    for name in ("deep", "grey", "levels", "shares"):
        expected = noise if name == "deep" else noise[:, :, :1].repeat(3, axis=2)
        with open_scene(tmp_path / f"{name}.tif") as scene:
            window = scene.read((0, 0, 120, 90))
            assert window.dtype == np.uint8 and np.array_equal(window, expected)


def test_all_windows_of_a_scene_have_one_range(tmp_path, write_geotiff):
    """A dark corner of a scene of 12 bits stays dark beside a bright one."""
    scene_of_12_bits = np.zeros((1, 90, 120), np.uint16)
    scene_of_12_bits[:, :, 60:], scene_of_12_bits[:, :, :60] = 4000, 200
    write_geotiff(tmp_path / "a.tif", scene_of_12_bits, "uint16")
    with open_scene(tmp_path / "a.tif") as scene:
        assert set(np.unique(scene.read((0, 0, 50, 50)))) == {200 >> 4}
        assert set(np.unique(scene.read((60, 0, 110, 50)))) == {4000 >> 4}


def test_a_range_that_is_known_costs_no_look_at_the_scene(tmp_path, monkeypatch, write_geotiff):
    """A reduced copy of a scene without overviews reads all of it."""
    path = tmp_path / "a.tif"
    write_geotiff(path, np.full((1, 40, 50), 1000, np.uint16), "uint16")
    looks = []
    read = RasterScene._read
    monkeypatch.setattr(
        RasterScene, "_read", lambda scene, **how: looks.append(how) or read(scene, **how)
    )
    for given, grey, look in (((0, 2000), 128, 0), (Range16(0, 2047), 125, 0), (None, 62, 1)):
        looks.clear()
        with open_scene(path, given) as scene:
            assert len(looks) == look
            assert scene.read((0, 0, 4, 4))[0, 0].tolist() == [grey] * 3


def test_gdal_opens_images_alone(tmp_path):
    """A file of GDAL's own format (VRT) can name other files and addresses."""
    pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    os.mkfifo(tmp_path / "b.tif")
    for name, message in (("a.tif", "not a readable image"), ("b.tif", "is a named pipe")):
        with pytest.raises(DataError, match=message), open_scene(tmp_path / name):
            pass


def test_damaged_and_missing_scenes(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0rubbish")
    for name in ("a.tif", "b.tif", "b.png"):
        with pytest.raises(DataError, match=name), open_scene(tmp_path / name):
            pass


def test_without_rasterio_a_tiff_is_read_whole(tmp_path, noise, monkeypatch):
    write_image(tmp_path / "a.tif", noise)
    monkeypatch.setattr("rfla.data.scenes.rasterio_or_none", lambda: None)
    with open_scene(tmp_path / "a.tif") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 1000)
    with (
        pytest.raises(DataError, match="where rasterio is installed"),
        open_scene(tmp_path / "a.tif"),
    ):
        pass


def test_huge_png_goes_by_windows(tmp_path, noise, monkeypatch):
    pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    write_image(tmp_path / "a.png", noise)
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 1000)
    monkeypatch.setattr(
        "rfla.data.scenes.read_image", lambda path: pytest.fail("the whole scene was read")
    )
    with open_scene(tmp_path / "a.png") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])


@pytest.mark.parametrize(
    ("crs", "corner", "side", "gsd"),
    [
        ("EPSG:32617", (500_000, 6_650_000), 0.5, 0.5 / 0.9996),  # the scale of its meridian
        # California, US survey feet, south of both parallels of its cone
        ("EPSG:2225", (6_561_666, 1_640_416), 1.0, 0.3048 / 1.00023),
        # at 60 degrees north a degree is 55,800 m of longitude and 111,412 m of latitude
        ("EPSG:4326", (10.0, 60.0), 1e-5, (0.55800 * 1.11412) ** 0.5),
        ("EPSG:3857", (1_113_195, 8_399_738), 0.6, 0.3 * (1.00252 * 1.00083) ** 0.5),  # the same
        (None, (10.0, 60.0), 0.5, None),
    ],
)
def test_metres_a_pixel(tmp_path, crs, corner, side, gsd):
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    from rasterio.transform import from_origin

    path = tmp_path / "x.tif"
    place = {"crs": crs, "transform": from_origin(*corner, side, side)}
    with rasterio.open(
        path, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8", **place
    ) as file:
        file.write(np.zeros((1, 9, 9), np.uint8))
    assert read_gsd(path) == (None if gsd is None else pytest.approx(gsd, rel=2e-4))
