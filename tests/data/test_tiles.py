"""Tiles: where windows lie, what becomes of boxes at their borders, and that rasters are read by windows."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg.verbs import ConvertOptions
from rfla.data import load_data_spec, load_index
from rfla.data.formats.record import NO_CLASS, make_record
from rfla.data.images import read_image, write_image
from rfla.data.tiles import cut, keeps_empty, open_scene, plan_windows, tile_starts, visible_shares
from rfla.errors import DataError
from rfla.tools.convert import convert


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "starts"),
    [
        (2000, 800, 200, [0, 600, 1200]),  # fits exactly
        (1500, 800, 200, [0, 600, 700]),  # the last tile is shifted inwards
        (1400, 800, 200, [0, 600]),  # the shifted tile is the usual one: no duplicate
        (1401, 800, 200, [0, 600, 601]),
        (800, 800, 200, [0]),
        (500, 800, 200, [0]),  # smaller than a tile
        (30, 10, 0, [0, 10, 20]),
    ],
)
def test_starts(length, tile, overlap, starts):
    assert tile_starts(length, tile, overlap) == starts


@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    tile=st.integers(16, 1000),
    share=st.floats(0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_scene_inside_it_and_never_twice(width, height, tile, share):
    overlap = int(tile * share)
    windows = plan_windows(width, height, tile, overlap)
    assert len(set(windows)) == len(windows)
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(right - left == min(tile, length) for left, right in spans)
        assert all(b[0] <= a[1] - min(overlap, length) for a, b in pairwise(spans))


def record_of(*boxes, labels=None, ignore=None):
    record = make_record(
        "scenes/a.tif", "x", boxes, labels or [0] * len(boxes), ignore=ignore, ids=range(len(boxes))
    )
    record.width, record.height = 100, 100
    return record


def test_visible_share_decides():
    """Window 0..50: a box at 40..60 is half visible, at 46..66 a fifth, at 60..70 not at all."""
    record = record_of((10, 10, 20, 20), (40, 10, 60, 20), (46, 10, 66, 20), (60, 10, 70, 20))
    part = cut(record, (0, 0, 50, 50), keep_visible=0.5)
    assert part.boxes.tolist() == [[10, 10, 20, 20], [40, 10, 50, 20], [46, 10, 50, 20]]
    assert part.ignore.tolist() == [
        False,
        False,
        True,
    ]  # pixels of the third are there: ignored, not background
    assert part.crowd.tolist() == [False, False, True]
    assert (part.width, part.height, part.file_name) == (50, 50, "scenes/a__0_0.png")
    assert part.ids.tolist() == [-1, -1, -1]
    assert cut(record, (0, 0, 50, 50), keep_visible=0).ignore.tolist() == [False, False, False]
    assert cut(record, (0, 0, 50, 50), keep_visible=1).ignore.tolist() == [False, True, True]


def test_origin_regions_and_boxes_without_area():
    record = record_of(
        (0, 0, 100, 100),
        (60, 60, 60, 64),
        (49, 60, 49, 64),
        labels=[NO_CLASS, 0, 0],
        ignore=[True, False, False],
    )
    part = cut(record, (50, 50, 100, 100), keep_visible=0.9)
    assert part.boxes.tolist() == [
        [0, 0, 50, 50],
        [10, 10, 10, 14],
    ]  # the flat box stays where its centre is
    assert part.labels.tolist() == [NO_CLASS, 0] and part.ignore.tolist() == [True, False]


def test_polygons_and_areas_hold_for_whole_boxes_alone():
    record = record_of((10, 10, 20, 20), (40, 10, 60, 20))
    record.attributes = {
        "polygon": np.array([[10, 10, 20, 10, 20, 20, 10, 20]] * 2, float),
        "area": np.array([70.0, 150.0]),
    }
    part = cut(record, (5, 0, 50, 50), keep_visible=0.5)
    assert part.attributes["polygon"][0].tolist() == [5, 10, 15, 10, 15, 20, 5, 20]
    assert np.isnan(part.attributes["polygon"][1]).all()
    assert part.attributes["area"][0] == 70 and np.isnan(part.attributes["area"][1])


@given(
    st.lists(st.tuples(*[st.integers(0, 99)] * 4), min_size=1, max_size=20),
    st.integers(16, 60),
    st.floats(0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_every_box_is_whole_in_some_tile_where_the_overlap_allows(corners, tile, share):
    """Boxes no larger than the overlap are whole in at least one tile, and no tile has a box that is not there."""
    overlap = int(tile * share)
    boxes = [
        (x, y, min(x + 1 + w % max(overlap, 1), 100), min(y + 1 + h % max(overlap, 1), 100))
        for x, y, w, h in corners
    ]
    record = record_of(*boxes)
    shares = np.array(
        [visible_shares(record.boxes, window) for window in plan_windows(100, 100, tile, overlap)]
    )
    small = [max(b[2] - b[0], b[3] - b[1]) <= overlap for b in boxes]
    assert (shares.max(axis=0)[small] == 1).all()
    assert ((shares >= 0) & (shares <= 1)).all() and (shares.max(axis=0) > 0).all()


def test_empty_tiles_are_chosen_by_name():
    names = [f"a__{x}_0.png" for x in range(2000)]
    kept = [keeps_empty(name, 0.25) for name in names]
    assert kept == [keeps_empty(name, 0.25) for name in names] and 400 < sum(kept) < 600
    assert all(keeps_empty(name, 1.0) for name in names) and not any(
        keeps_empty(name, 0.0) for name in names
    )
    assert all(
        keeps_empty(name, 0.5) for name, at_quarter in zip(names, kept, strict=True) if at_quarter
    )


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)


def test_png_windows(tmp_path, noise):
    write_image(tmp_path / "a b ü.png", noise)
    with open_scene(tmp_path / "a b ü.png") as scene:
        assert (scene.width, scene.height) == (120, 90)
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])


def write_geotiff(path, bands, dtype="uint8"):
    """A tiled GeoTIFF of (bands, H, W)."""
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    from rasterio.transform import from_origin

    count, height, width = bands.shape
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.3, 0.3)}
    with rasterio.open(
        path, "w", "GTiff", width, height, count, dtype=dtype, **options, **place
    ) as out:
        out.write(bands.astype(dtype))


def test_geotiff_is_read_by_windows_alone(tmp_path, noise, monkeypatch):
    infrared = np.full((1, 90, 120), 7, np.uint8)
    write_geotiff(tmp_path / "four bands.tif", np.concatenate([noise.transpose(2, 0, 1), infrared]))
    monkeypatch.setattr(
        "rfla.data.tiles.read_image", lambda path: pytest.fail("the whole scene was read")
    )
    with open_scene(tmp_path / "four bands.tif") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])
        assert np.array_equal(scene.read((0, 0, 120, 90)), noise)


def test_whole_geotiffs_that_training_would_misread_become_png(tmp_path, noise):
    """Four bands (red, green, blue, infrared) look like RGBA to image libraries, which multiply by the "alpha"."""
    infrared = np.full((1, 90, 120), 7, np.uint8)
    source = tmp_path / "src"
    source.mkdir()
    write_geotiff(source / "four.tif", np.concatenate([noise.transpose(2, 0, 1), infrared]))
    write_geotiff(source / "deep.tif", noise.transpose(2, 0, 1).astype(np.uint16) * 256, "uint16")
    write_geotiff(source / "plain.tif", noise.transpose(2, 0, 1))
    rows = "".join(f"{name}.tif,10,20,16,28,tree\n" for name in ("four", "deep", "plain"))
    (source / "train.csv").write_text("image,xmin,ymin,xmax,ymax,label\n" + rows)
    options = ConvertOptions(format="csv", source=str(source), out=str(tmp_path / "out"))
    report = convert(options)
    index = load_index(load_data_spec(tmp_path / "out"), "train")
    assert [Path(path).name for path in index.paths] == ["four.png", "deep.png", "plain.tif"]
    assert all(np.array_equal(read_image(path), noise) for path in index.paths)
    assert index.boxes.tolist() == [[10, 20, 16, 28]] * 3 and report.repaired.total() == 2


def test_16_bit_grey_and_float_geotiff(tmp_path, noise):
    write_geotiff(
        tmp_path / "deep.tif", noise.transpose(2, 0, 1).astype(np.uint16) * 256 + 5, "uint16"
    )
    write_geotiff(tmp_path / "grey.tif", noise[None, :, :, 0])
    write_geotiff(tmp_path / "float.tif", noise[None, :, :, 0], "float32")
    for name, expected in (("deep", noise), ("grey", noise[:, :, :1].repeat(3, axis=2))):
        with open_scene(tmp_path / f"{name}.tif") as scene:
            window = scene.read((0, 0, 120, 90))
            assert window.dtype == np.uint8 and np.array_equal(window, expected)
    with (
        pytest.raises(DataError, match=r"float\.tif: pixels are float32"),
        open_scene(tmp_path / "float.tif"),
    ):
        pass


def test_damaged_and_missing_scenes(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0rubbish")
    for name in ("a.tif", "b.tif", "b.png"):
        with pytest.raises(DataError, match=name), open_scene(tmp_path / name):
            pass


def test_without_rasterio_a_tiff_is_read_whole(tmp_path, noise, monkeypatch):
    write_image(tmp_path / "a.tif", noise)
    monkeypatch.setattr("rfla.data.tiles._rasterio", lambda: None)
    with open_scene(tmp_path / "a.tif") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)  # as for a scene of 179 Mpx and more
    with pytest.raises(DataError, match=r"rfla\[geo\]"), open_scene(tmp_path / "a.tif"):
        pass


def test_huge_png_goes_by_windows(tmp_path, noise, monkeypatch):
    pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    write_image(tmp_path / "a.png", noise)
    monkeypatch.setattr("rfla.data.tiles.BY_WINDOWS", 1000)
    monkeypatch.setattr(
        "rfla.data.tiles.read_image", lambda path: pytest.fail("the whole scene was read")
    )
    with open_scene(tmp_path / "a.png") as scene:
        assert np.array_equal(scene.read((10, 20, 50, 40)), noise[20:40, 10:50])


SCRIPT = """
import resource, sys, warnings
import numpy as np
from rfla.cfg.verbs import ConvertOptions
from rfla.tools.convert import convert

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source, out = sys.argv[1:]
convert(ConvertOptions(format="csv", source=source, out=out, tile=800, overlap=200, workers=1))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_a_large_geotiff_is_never_in_memory(tmp_path):
    """A scene of 10,000 x 10,000 px is 286 MiB of pixels; cutting it must cost far less."""
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    side, block = (
        10_000,
        np.arange(512, dtype=np.uint8)[None, None].repeat(512, axis=1).repeat(3, axis=0),
    )
    source = tmp_path / "src"
    source.mkdir()
    options = {
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "zlevel": 1,
    }
    with rasterio.open(source / "scene.tif", "w", "GTiff", side, side, 3, **options) as out:
        for y in range(0, side, 512):
            for x in range(0, side, 512):
                height, width = min(512, side - y), min(512, side - x)
                out.write(block[:, :height, :width], window=((y, y + height), (x, x + width)))
    (source / "train.csv").write_text(
        "image,xmin,ymin,xmax,ymax,label\nscene.tif,9000,9000,9010,9010,car\n"
    )
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{float(ran.stdout.split()[-1]):.0f} MiB more")
    assert float(ran.stdout.split()[-1]) < 150
