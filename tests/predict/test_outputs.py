"""Files of a prediction: tables that hold every box, videos of the right length and speed."""

import csv
import json
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rfla import RFLA
from rfla.cfg import Config, load_config
from rfla.errors import ConfigError, DataError
from rfla.predict.command import predict
from rfla.predict.outputs import OUTPUTS, Outputs
from rfla.predict.outputs.output import Output, Row
from rfla.predict.outputs.pictures import scene_sheet
from rfla.predict.source_image import SourceImage
from rfla.results import Boxes, Results


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """An image, a video of 9 frames at 10 a second, a TIFF of two pages, and what is broken."""
    root = tmp_path / "in"
    root.mkdir()
    cv2.imwrite(str(root / "a.png"), noise(64, 64))
    writer = cv2.VideoWriter(str(root / "f.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(9):
        writer.write(noise(48, 64))
    writer.release()
    pages = [Image.fromarray(noise(64, 64)) for _ in range(2)]
    pages[0].save(root / "s.tif", save_all=True, append_images=pages[1:])
    (root / "t.mp4").write_text("text")
    return root


@pytest.fixture
def settings(weights: Path, mixed: Path, tmp_path: Path) -> Callable[..., Config]:
    def give(**changes: Any) -> Config:
        basis = {"model": str(weights), "source": str(mixed), "project": str(tmp_path / "runs")}
        options = {"device": "cpu", "conf": 0.0, "max_det": 3, "verbose": False, "imgsz": 64}
        return load_config(basis | options | changes, mode="predict")

    return give


def test_long_texts_are_written_in_parts(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three boxes an image, two at a time: the same bytes as all at once."""
    whole = predict(settings(save_csv=True, save=False)).run_dir
    monkeypatch.setattr("rfla.predict.outputs.output.AT_A_TIME", 2)
    parts = predict(settings(save_csv=True, save=False)).run_dir
    for name in ("predictions.json", "predictions.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes() != b""


def test_mixed_sources(settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    run = predict(settings(save_csv=True, save_video=True, vid_stride=2)).run_dir
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    pictures = {"a.png", "s_p1.png", "s_p2.png"}
    assert files == pictures | {"args.yaml", "f.mp4", "predictions.csv", "predictions.json"}
    frames = [f"f_{index:06d}.avi" for index in (0, 2, 4, 6, 8)]
    rows = json.loads((run / "predictions.json").read_text())
    ids = list(dict.fromkeys(row["image_id"] for row in rows))
    assert ids == ["a.png", *frames, "s_p1.tif", "s_p2.tif"] and len(rows) == 8 * 3
    table = list(csv.DictReader((run / "predictions.csv").open()))
    assert [(row["image"], row["frame"], row["time"]) for row in table[6:7]] == [
        ("f_000002.avi", "2", "0.200")
    ]
    assert float(table[0]["x1"]) == pytest.approx(rows[0]["bbox"][0], abs=1e-3)
    video = cv2.VideoCapture(str(run / "f.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5.0)  # every second of 10 a second
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64, 48)
    out = capsys.readouterr().out
    assert "t.mp4: not a readable video (a text file)" in out and "8 images, 24 detections" in out
    counts = {name: sum(row["category_name"] == name for row in rows) for name in ("ship", "car")}
    assert all(f"{count} {name}" in out for name, count in counts.items() if count)


def test_the_first_page_alone(settings: Callable[..., Config], mixed: Path) -> None:
    run = predict(settings(source=str(mixed / "s.tif"), pages="first")).run_dir
    assert (run / "s.png").exists() and not (run / "s_p1.png").exists()


def test_directories_without_their_subdirectories(
    settings: Callable[..., Config], mixed: Path
) -> None:
    (mixed / "deep").mkdir()
    (mixed / "a.png").rename(mixed / "deep" / "b.png")
    run = predict(settings(recursive=False)).run_dir
    assert not (run / "deep").exists() and (run / "s_p1.png").exists()


def test_one_source_that_cannot_be_read_is_the_error(
    settings: Callable[..., Config], mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"t\.mp4: not a readable video \(a text file\)"):
        predict(settings(source=str(mixed / "t.mp4")))
    assert "skipped" not in capsys.readouterr().out


def test_frames_in_python(weights: Path, mixed: Path) -> None:
    stream = RFLA(weights).predict(mixed / "f.avi", device="cpu", stream=True, vid_stride=4)
    found = [(result.frame, result.time) for result in stream]
    assert found == [(0, 0.0), (4, pytest.approx(0.4)), (8, pytest.approx(0.8))]
    page = RFLA(weights).predict(mixed / "s.tif", device="cpu")[1]
    assert (page.frame, page.time, page[:0].frame) == (1, None, 1)
    assert "s.tif (page 2)'" in repr(page)


def frame(index: int, size: tuple[int, int] = (48, 64)) -> Results:
    none = Boxes(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int64), size)
    return Results(np.zeros((*size, 3), np.uint8), "v.mp4", ("a",), none, {}, index, index / 4)


def outputs(run_dir: Path, **settings: Any) -> Outputs:
    run_dir.mkdir(exist_ok=True)
    return Outputs(run_dir, [SourceImage("v.mp4", Path("v.mp4"))], load_config(settings))


def test_a_video_is_whole_after_an_interrupt_and_hidden_before(tmp_path: Path) -> None:
    writer = outputs(tmp_path, save_video=True, save=False)
    for index in range(3):
        writer.write(frame(index))
    assert not (tmp_path / "v.mp4").exists()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_a_full_disk_is_said_and_leaves_no_half_video(tmp_path: Path) -> None:
    writer = outputs(tmp_path, save_video=True, save=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"v.mp4: only \d+ of 40 frames were written"):
            for index in range(40):
                noisy = noise(48, 64) // (index + 1)
                writer.write(replace(frame(index), orig_img=noisy))
            writer.rescue()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


def test_without_an_encoder_frames_become_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfla.predict.outputs.video.CODECS", {})
    writer = outputs(tmp_path, save_video=True)
    for index in range(2):
        writer.write(frame(index))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v_000000.png", "v_000001.png"]


def test_a_video_of_one_frame_and_of_odd_sides(tmp_path: Path) -> None:
    writer = outputs(tmp_path, save_video=True)
    writer.write(frame(0, (49, 65)))
    writer.close()
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 1


def detected(image: np.ndarray, path: str, shape: tuple[int, int]) -> Results:
    boxes = np.array([[100, 50, 108, 58], [120, 60, 128, 68]], np.float32)
    found = Boxes(boxes, np.array([0.9, 0.8]), np.array([0, 0]), shape)
    return Results(image, path, ("a",), found)


def test_a_large_scene_is_a_sheet_unless_its_scale_is_given(tmp_path: Path) -> None:
    result = detected(np.zeros((500, 3200, 3), np.uint8), "v.mp4", (500, 3200))
    outputs(tmp_path).write(result)
    assert cv2.imread(str(tmp_path / "v.png")).shape == (250 + 28 + 6 + 392 + 22, 1600, 3)
    outputs(tmp_path, scale=1, legend=False).write(result)
    assert cv2.imread(str(tmp_path / "v.png")).shape == (500, 3200, 3)


def test_details_of_a_scene_that_was_read_by_windows_come_from_its_file(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    path = tmp_path / "s.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB"}
    with rasterio.open(path, "w", height=500, width=3200, **profile) as file:
        file.write(np.full((3, 500, 3200), 77, np.uint8))
    result = detected(np.zeros((50, 320, 3), np.uint8), str(path), (500, 3200))
    sheet = scene_sheet(result, load_config({}))
    assert (sheet[-100, 100] == 77).all() and (sheet[200, 1000] == 0).all()
    writer = Outputs(
        tmp_path, [SourceImage(str(path), Path("s.tif"))], load_config({"save_crop": True})
    )
    writer.write(result)
    crop = cv2.imread(str(tmp_path / "crops" / "a" / "s_1.png"))
    assert crop.shape == (8, 8, 3) and (crop == 77).all()


def test_density_maps(tmp_path: Path) -> None:
    writer = outputs(tmp_path, save_density=True, save=False)
    writer.write(detected(np.zeros((500, 640, 3), np.uint8), "v.mp4", (500, 640)))
    writer.write(frame(0))  # of a video: no map for each
    assert [path.name for path in tmp_path.rglob("*.png")] == ["v.png"]
    assert (tmp_path / "density" / "v.png").exists()


def test_a_table_holds_no_formula(tmp_path: Path) -> None:
    boxes = Boxes(np.ones((1, 4), np.float32), np.ones(1), np.zeros(1, np.int64), (4, 4))
    result = Results(np.zeros((4, 4, 3), np.uint8), "=1+1.png", ("=cmd|x",), boxes)
    writer = Outputs(
        tmp_path,
        [SourceImage("=1+1.png", Path("=1+1.png"))],
        load_config({"save": False, "save_csv": True}),
    )
    writer.write(result)
    writer.finish([writer.rows])
    line = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert line == "./=1+1.png,,,1.000,1.000,1.000,1.000,1.000000,0,'=cmd|x"


def test_frames_give_the_boxes_of_their_pixels(weights: Path, mixed: Path) -> None:
    model = RFLA(weights)
    capture, frames = cv2.VideoCapture(str(mixed / "f.avi")), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    alone = model.predict(frames[:3], channels="bgr", conf=0.0, max_det=5, device="cpu")
    video = model.predict(mixed / "f.avi", conf=0.0, max_det=5, device="cpu", batch=2)
    assert len(video) == 9
    for one, other in zip(alone, video[:3], strict=True):
        np.testing.assert_allclose(one.boxes.xyxy, other.boxes.xyxy, atol=1e-4)


def test_an_output_from_outside_is_a_class_and_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counts(Output):
        key = "save"

        def finish(self, rows: Sequence[Row]) -> None:
            counts = {row.name.image_id: len(row.results) for row in rows}
            (self.run_dir / "counts.json").write_text(json.dumps(counts))

    monkeypatch.setattr("rfla.predict.outputs.OUTPUTS", (Counts,))
    writer = outputs(tmp_path)
    writer.write(detected(np.zeros((60, 200, 3), np.uint8), "v.mp4", (60, 200)))
    writer.rescue()
    assert json.loads((tmp_path / "counts.json").read_text()) == {"v.mp4": 2}


def test_every_output_has_a_key() -> None:
    assert {output.key for output in OUTPUTS} - {""} <= Config.model_fields.keys()


def test_without_rasterio_the_missing_map_is_named(
    weights: Path,
    tmp_path: Path,
    write_geotiff: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for it is an error, before anything is written; else a line for the image."""
    write_geotiff(tmp_path / "a.tif", np.full((3, 64, 64), 99))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    given = {"model": str(weights), "project": str(tmp_path / "runs"), "device": "cpu"}

    def run(**more: str) -> list[str]:
        return predict(load_config(given | more, mode="predict")).skipped

    with pytest.raises(ConfigError, match=r"rasterio is not installed; geo=gpkg needs it: in the"):
        run(source=str(tmp_path / "a.tif"), geo="gpkg")
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
    said = run(source=str(tmp_path / "a.tif"))
    assert len(said) == 1 and "a.tif: no .geojson file: rasterio is not installed" in said[0]
    assert run(source=str(tmp_path / "b.png")) == []
    assert run(source=str(tmp_path / "a.tif"), geo="off") == []
