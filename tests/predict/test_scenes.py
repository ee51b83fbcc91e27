"""Scenes: read by windows as if read whole, and boxes in coordinates of the ground."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfla import RFLA
from rfla.cfg import load_config
from rfla.data.georeference import Georeference, read_georeference
from rfla.data.image_header import set_max_pixels
from rfla.engine.inference import Inference
from rfla.errors import DataError
from rfla.models.weights import load_weights, save_weights
from rfla.predict.command import predict
from rfla.predict.outputs.geojson import to_geojson
from rfla.results import Boxes, Results
from rfla.sizes import MAX_PIXELS

rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")


def write_scene(path: Path, pixels: np.ndarray, **georeference: Any) -> Path:
    """Write (H, W, 3) uint8 as a GeoTIFF of 0.5 m px in UTM zone 17N."""
    from rasterio.transform import from_origin

    height, width = pixels.shape[:2]
    place = {"crs": "EPSG:32617", "transform": from_origin(404000.0, 3285000.0, 0.5, 0.5)}
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB"}
    with rasterio.open(
        path, "w", height=height, width=width, **kind, **(place | georeference)
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 130, 3), np.uint8)
    return write_scene(tmp_path / "scene.tif", pixels)


def test_windows_give_what_the_whole_gives(
    weights: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"conf": 0.0, "max_det": 40, "imgsz": 64, "slice": 64, "batch": 3}
    model = RFLA(weights)
    whole = model.predict(scene, device="cpu", **settings)[0]
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 10_000)
    monkeypatch.setattr("rfla.predict.image_jobs.REDUCED", 75)
    windows = model.predict(scene, device="cpu", **settings)[0]
    np.testing.assert_array_equal(windows.boxes.xyxy, whole.boxes.xyxy)
    np.testing.assert_array_equal(windows.boxes.conf, whole.boxes.conf)
    assert windows.orig_shape == (150, 130) and windows.orig_img.shape == (75, 65, 3)
    assert windows.plot(scale=1, legend=False).shape == (75, 65, 3)
    with pytest.raises(DataError, match="no crops of a scene"):
        windows.save_crop("crops")


def test_a_scene_that_breaks_off_is_skipped(
    weights: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the source is predicted."""
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 10_000)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(scene.read_bytes()[:30_000])
    model, settings = RFLA(weights), {"conf": 0.0, "max_det": 5, "imgsz": 64, "device": "cpu"}
    found = model.predict([broken, scene], slice=64, **settings)
    assert [Path(result.path).name for result in found] == ["scene.tif"]


def test_a_scene_that_is_too_large_to_decode(
    weights: Path, scene: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 10_000)
    model, settings = RFLA(weights), {"device": "cpu", "max_pixels": 15_000}
    try:
        assert model.predict(scene, **settings) == []
        assert "slice=800 reads it by windows" in caplog.text
        assert len(model.predict(scene, slice=64, **settings)) == 1
    finally:
        set_max_pixels(MAX_PIXELS)


def result_of(box: list[float]) -> Results:
    boxes = Boxes(
        np.array([box], np.float32), np.array([0.5], np.float32), np.zeros(1, int), (40, 60)
    )
    return Results(np.zeros((40, 60, 3), np.uint8), "a.tif", ("tree",), boxes)


def test_a_box_on_the_ground() -> None:
    """Pixels 10..20, 4..8 of 0.5 m: 5 m to 10 m east, 2 m to 4 m south of the corner."""
    place = Georeference((0.5, 0, 404000, 0, -0.5, 3285000), "EPSG:32617")
    document = json.loads("".join(to_geojson(result_of([10, 4, 20, 8]), place)))
    feature = document["features"][0]
    assert feature["geometry"]["coordinates"] == [
        [
            [404005, 3284998],
            [404005, 3284996],
            [404010, 3284996],
            [404010, 3284998],
            [404005, 3284998],
        ]
    ]
    assert feature["properties"] == {"name": "tree", "class": 0, "confidence": 0.5}
    assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32617"


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_many_boxes_are_written_in_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Georeference((0.5, 0, 404000, 0, -0.5, 3285000), "EPSG:32617")
    results = result_of([10, 4, 20, 8])[np.zeros(count, np.int64)]
    whole = "".join(to_geojson(results, place))
    monkeypatch.setattr("rfla.predict.outputs.output.AT_A_TIME", 2)
    parts = list(to_geojson(results, place))
    assert "".join(parts) == whole and len(json.loads(whole)["features"]) == count
    assert len(parts) == max(-(-count // 2), 1) + 1


def test_degrees_are_longitude_first() -> None:
    place = Georeference((0.5, 0, 404000, 0, -0.5, 3285000), "EPSG:32617")
    document = json.loads("".join(to_geojson(result_of([0, 0, 20, 8]), place, wgs84=True)))
    x, y = document["features"][0]["geometry"]["coordinates"][0][0]
    assert "crs" not in document and (x, y) == pytest.approx((-81.9923, 29.6914), abs=2e-4)


def test_a_box_on_the_antimeridian_is_as_wide_as_it_is() -> None:
    """UTM zone 1 south, off Fiji: 20 px of 0.5 m are 10 m, on both sides of 180 degrees."""
    place = Georeference((0.5, 0, 180_400, 0, -0.5, 8_118_000), "EPSG:32701")
    west, east = place.to_wgs84(np.array([[0.0, 0], [1e4, 0]]))[:, 0]
    middle = 1e4 * (180 - west) / (east + 360 - west)
    box = [middle - 10, 40, middle + 10, 60]
    document = json.loads("".join(to_geojson(result_of(box), place, wgs84=True)))
    longitudes = np.array(document["features"][0]["geometry"]["coordinates"][0])[:, 0]
    assert longitudes.min() < 180 < longitudes.max() or longitudes.min() < -180 < longitudes.max()
    assert np.ptp(longitudes) == pytest.approx(10 / 106_000, rel=0.1)


def test_rotated_and_mirrored_rasters_keep_their_corners() -> None:
    """A quarter turn: columns run north, rows east. Rings run counter-clockwise all the same."""
    for transform in ((0.0, 1.0, 0.0, 1.0, 0.0, 0.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)):
        parts = to_geojson(result_of([10, 4, 20, 8]), Georeference(transform, ""))
        document = json.loads("".join(parts))
        ring = np.array(document["features"][0]["geometry"]["coordinates"][0])
        x, y = ring.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() == 2 * 40  # twice the area, positive
        assert "crs" not in document
        assert set(map(tuple, np.abs(ring).tolist())) == {(4, 10), (4, 20), (8, 20), (8, 10)}


def test_what_has_no_place(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    plain = write_scene(tmp_path / "p.tif", pixels, crs=None, transform=rasterio.Affine.identity())
    assert read_georeference(plain) is None
    nameless = write_scene(tmp_path / "n.tif", pixels, crs=None)
    place = read_georeference(nameless)
    assert place is not None and (place.crs, place.transform[2]) == ("", 404000.0)
    with pytest.raises(DataError, match="states no coordinate reference system"):
        "".join(to_geojson(result_of([0, 0, 1, 1]), place, wgs84=True))


def test_points_off_the_earth_have_no_degrees() -> None:
    utm = Georeference((1.0, 0, 1e12, 0, -1.0, 1e12), "EPSG:32617")
    with pytest.raises(DataError, match="no WGS84"):
        utm.to_wgs84(np.zeros((1, 2)))
    site = 'LOCAL_CS["site",UNIT["metre",1]]'  # a building site's own: no way to the earth
    with pytest.raises(DataError, match="no WGS84"):
        Georeference((1.0, 0, 0, 0, -1.0, 0), site).to_wgs84(np.zeros((1, 2)))


def test_a_raster_without_degrees_is_named_and_the_others_are_written(
    weights: Path, scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(scene, folder / "z.tif")
    write_scene(folder / "n.tif", np.zeros((64, 64, 3), np.uint8), crs=None)
    settings = {"model": str(weights), "source": str(folder), "project": str(tmp_path / "runs")}
    settings |= {"max_det": 2, "conf": 0.0, "device": "cpu", "geo_crs": "wgs84", "geo": "both"}
    done = predict(load_config(settings, mode="predict"))
    why = "the raster states no coordinate reference system; geo_crs=raster writes one"
    assert done.skipped == [
        f"{folder / 'n.tif'}: no {suffix} file: {why}" for suffix in (".geojson", ".gpkg")
    ]
    assert sorted(path.name for path in done.run_dir.glob("*.g*")) == ["z.geojson", "z.gpkg"]
    assert len(json.loads((done.run_dir / "predictions.json").read_text())) == 4

    options = {"geo": "geojson", "geo_crs": "wgs84", "project": tmp_path / "api"}
    results = RFLA(weights).predict(folder, conf=0.0, max_det=2, device="cpu", **options)
    assert len(results) == 2
    assert caplog.messages[0] == f"{folder / 'n.tif'}: no .geojson file: {why}"


@pytest.mark.parametrize("by_windows", [False, True])
def test_the_range_of_values_holds_for_scenes_too(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_windows: bool
) -> None:
    """1000 of 0 to 2000 is 127.5, rounded up: 128; of 12 bits, as the file looks, 62."""
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 1 if by_windows else 10**9)
    path, kind = tmp_path / "deep.tif", {"driver": "GTiff", "height": 64, "width": 64}
    with rasterio.open(path, "w", count=1, dtype="uint16", **kind) as file:
        file.write(np.full((1, 64, 64), 1000, np.uint16))
    settings = {"slice": 64, "device": "cpu", "max_det": 2, "conf": 0.0}
    (result,) = RFLA(weights).predict(path, normalize={"range": [0, 2000]}, **settings)
    assert np.unique(result.orig_img).tolist() == [128]
    (result,) = RFLA(weights).predict(path, **settings)
    assert np.unique(result.orig_img).tolist() == [62]


def test_the_command_writes_geojson(weights: Path, scene: Path, tmp_path: Path) -> None:
    settings = {"model": str(weights), "source": str(scene), "project": str(tmp_path / "runs")}
    options = {"conf": 0.0, "max_det": 7, "device": "cpu", "verbose": False}
    run = predict(load_config(settings | options, mode="predict")).run_dir
    assert len(json.loads((run / "scene.geojson").read_text())["features"]) == 7
    off = predict(load_config(settings | options | {"geo": "off"}, mode="predict")).run_dir
    assert not (off / "scene.geojson").exists()


def test_damaged_and_odd_rasters_by_windows(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each that cannot be read; bands, bits and places are no obstacle."""
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 1)
    rng, kind = np.random.default_rng(0), {"driver": "GTiff", "height": 70, "width": 66}
    turned = rasterio.Affine.translation(4e5, 3e6) @ rasterio.Affine.rotation(30)
    for bands, dtype in [(1, "uint8"), (2, "uint16"), (4, "uint8"), (8, "uint16")]:
        path = tmp_path / f"good{bands}.tif"
        with rasterio.open(path, "w", count=bands, dtype=dtype, transform=turned, **kind) as file:
            file.write(rng.integers(0, 250, (bands, 70, 66)).astype(dtype))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "good4.tif").read_bytes()[:9000])
    (tmp_path / "junk.tif").write_bytes(b"II*\0" + bytes(range(250)))
    (tmp_path / "empty.tif").write_bytes(b"")
    settings: dict[str, Any] = {"conf": 0.0, "max_det": 3, "imgsz": 64, "device": "cpu"}
    found = RFLA(weights).predict(tmp_path, slice=64, overlap=16, **settings)
    assert [Path(result.path).stem for result in found] == [f"good{n}" for n in (1, 2, 4, 8)]
    for name in ("cut", "junk", "empty"):
        assert len([line for line in caplog.messages if f"{name}.tif" in line]) == 1


@pytest.mark.parametrize(
    ("place", "times"),
    [
        ({}, "0.5 m a pixel, the model was trained at 1 m: resized to 0.5 of its size"),
        ({"crs": "EPSG:2225"}, "0.152 m a pixel"),  # feet of the United States: 0.5 * 0.3048 m
        ({"crs": None}, ""),  # units nobody knows: not resized
    ],
)
@pytest.mark.parametrize("windows", [False, True], ids=["whole", "by windows"])
def test_the_ground_is_read_from_the_file(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: dict[str, Any],
    times: str,
    windows: bool,
) -> None:
    """Pixels of 0.5 m, a model of 1 m: as with gsd=0.5, in slices of 128 px seen at 64 px."""
    state, metadata = load_weights(weights)
    knows = {"objects": {"px_99": 9.0, "px_max": 12.5}, "gsd": 1.0}
    save_weights(tmp_path / "aware.safetensors", state, metadata | knows)
    pixels = np.random.default_rng(0).integers(0, 255, (200, 150, 3), np.uint8)
    scene = write_scene(tmp_path / "scene.tif", pixels, **place)
    if windows:
        monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 10_000)
    seen: list[tuple[int, int]] = []
    real = Inference.__call__

    def watched(self: Inference, images: Any, sizes: Any, *rest: Any) -> Any:
        seen.extend(zip(sizes, map(tuple, rest[1]), strict=True))
        return real(self, images, sizes, *rest)

    monkeypatch.setattr(Inference, "__call__", watched)
    settings: dict[str, Any] = {"conf": 0.0, "max_det": 20, "imgsz": 64, "device": "cpu"}
    model = RFLA(tmp_path / "aware.safetensors")
    (found,) = model.predict(scene, slice="auto", overlap=16, **settings)
    assert times in caplog.text and ("resized" in caplog.text) == bool(times)
    if times.startswith("0.5 m"):
        assert seen == [((64, 64), (128, 128))] * 4  # of 2 x 2 slices
        (given,) = model.predict(pixels, slice="auto", overlap=16, gsd=0.5, **settings)
        np.testing.assert_array_equal(found.boxes.xyxy, given.boxes.xyxy)
        assert found.boxes.xyxy[:, 2].max() > 128
    elif times:
        assert {size for _, size in seen} == {(200, 150)}  # slices of 420 px: the image is one
        assert {shape for shape, _ in seen} == {(30, 23)}  # 200 * 0.1524, 150 * 0.1524
    else:
        assert seen[0] == ((64, 64), (64, 64))


def test_a_scene_that_was_stopped_in_the_middle_is_begun_again(
    weights: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of the half scene; after resume the files are those of a run without stop."""
    monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 10_000)
    settings = {"model": str(weights), "source": str(scene), "project": str(tmp_path / "runs")}
    settings |= {"conf": 0.0, "max_det": 9, "device": "cpu", "imgsz": 64, "slice": 64, "batch": 2}
    settings |= {"save_csv": True, "save_density": True}
    whole = predict(load_config(settings | {"name": "whole"}, mode="predict")).run_dir
    real, calls = Inference.__call__, []

    def stopping(self: Inference, *rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Inference, "__call__", stopping)
        predict(load_config(settings | {"name": "stopped"}, mode="predict"))
    run = whole.with_name("stopped")
    assert json.loads((run / "predictions.json").read_text()) == []
    assert not list(run.rglob("*.png")) and not list(run.rglob("*.geojson"))
    predict(load_config({"resume": str(run)}, mode="predict"))
    assert files_of(run) == files_of(whole) != {}


def files_of(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "args.yaml")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}
