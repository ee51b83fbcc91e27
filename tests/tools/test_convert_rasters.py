"""Converting GeoTIFF: what training would misread becomes PNG, large scenes need little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfla.cfg.verbs import ConvertOptions
from rfla.data import load_data_spec, load_index
from rfla.data.common_range import CommonRange, find_common_range
from rfla.data.images import read_image
from rfla.tools.convert import convert


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)


def test_whole_geotiffs_that_training_would_misread_become_png(tmp_path, noise, write_geotiff):
    """Red, green, blue, infrared look like RGBA to image libraries, which multiply by "alpha"."""
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


@pytest.mark.parametrize("given", [None, (0.0, 2047.0)])
def test_scenes_of_16_bits_share_one_range(tmp_path, write_geotiff, given):
    """A dark scene (up to 1,000) in train, a bright one (up to 3,000) in val: 12 bits in both."""
    source = tmp_path / "src"
    for split, highest in (("train", 1000), ("val", 3000)):
        (source / split).mkdir(parents=True)
        scene = np.full((1, 64, 96), 480, np.uint16)
        scene[0, 0, 0] = highest
        write_geotiff(source / split / f"{split}.tif", scene, "uint16")
        rows = f"image,xmin,ymin,xmax,ymax,label\n{split}/{split}.tif,10,20,16,28,tree\n"
        (source / f"{split}.csv").write_text(rows)
    options = ConvertOptions(
        format="csv",
        source=str(source),
        out=str(tmp_path / "out"),
        tile=64,
        overlap=32,
        range=given,
    )
    report = convert(options)
    spec = load_data_spec(tmp_path / "out")
    grey = {split: read_image(load_index(spec, split).paths[0])[1, 1, 0] for split in spec.splits}
    # 12 bits lose the last four; 2,047 are 11 bits, which lose three
    assert grey == ({"train": 30, "val": 30} if given is None else {"train": 60, "val": 60})
    said = "2 16-bit images looked at: the highest value is 3,000, so 0 to 4,095 become 0 to 255 "
    assert report.range_16.startswith(said) is (given is None)
    assert (report.range_16 in report.table()) and not report.repaired


def test_the_range_of_a_large_scene_is_seen_on_a_reduced_copy(tmp_path, write_geotiff, monkeypatch):
    """Beyond what is decoded whole; a scene that states its range, and one of 8 bits, have none."""
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 100)
    monkeypatch.setattr("rfla.data.common_range.highest_of_16_bits", None)
    bright = np.full((1, 64, 96), 5000, np.uint16)
    write_geotiff(tmp_path / "a.tif", bright, "uint16")
    write_geotiff(tmp_path / "b.tif", np.zeros((1, 64, 96), np.uint8))
    assert find_common_range([str(tmp_path / "a.tif")]) == CommonRange(5000, 1)
    assert find_common_range([str(tmp_path / "b.tif")]) is None


def test_scenes_that_only_rasterio_reads_count_for_the_range(tmp_path, write_geotiff):
    """Three bands without a colour, as GDAL writes them, and four: beside one of plain grey."""
    for name, bands, highest in (("a", 3, 800), ("b", 4, 20_000), ("c", 1, 4000)):
        scene = np.full((bands, 64, 96), 5, np.uint16)
        scene[:, 0, 0] = highest
        write_geotiff(tmp_path / f"{name}.tif", scene, "uint16")
    files = [str(tmp_path / f"{name}.tif") for name in "abc"]
    assert find_common_range(files) == CommonRange(20_000, 3)
    assert find_common_range(files[:1]) == CommonRange(800, 1)
