"""Prediction: batches of any sizes, slices, files, what is said, and the Python face."""

import io
import itertools
import json
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from rfla import RFLA
from rfla.cfg import Config, load_config
from rfla.engine.model_source import load_trained
from rfla.errors import ConfigError, DataError, ExistingRunError, RflaError
from rfla.metrics.coco_io import read_ground_truth
from rfla.metrics.detection_files import read_detections
from rfla.predict import merge_tiles, plan_tiles
from rfla.predict.command import predict
from rfla.predict.options import PredictOptions, class_indices
from rfla.predict.outputs import Outputs
from rfla.predict.predictor import Predictor
from rfla.results import Boxes, Results


@pytest.fixture
def asked(weights: Path, folder: Path, tmp_path: Path) -> Callable[..., Config]:
    def give(**changes: Any) -> Config:
        settings = {
            "model": str(weights),
            "source": str(folder),
            "project": str(tmp_path / "runs"),
            "device": "cpu",
        }
        return load_config(settings | changes, mode="predict")

    return give


def test_files(asked: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    run = predict(asked(conf=0.01, save_txt=True, save_conf=True)).run_dir
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    pictures, labels = {f"{n}.png" for n in "abc"}, {f"labels/{n}.txt" for n in "abc"}
    assert names == {"args.yaml", "predictions.json"} | pictures | labels
    rows = json.loads((run / "predictions.json").read_text())
    text = (run / "labels" / "b.txt").read_text().split("\n")[0].split()
    first = next(row for row in rows if row["image_id"] == "b.png")
    assert len(text) == 6 and float(text[3]) * 90 == pytest.approx(first["bbox"][2], rel=1e-4)
    assert "3 images" in capsys.readouterr().out
    assert predict(asked(conf=0.01, save=False)).run_dir.name == "predict2"


def test_unreadable_images_are_named(
    asked: Callable[..., Config], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.png").write_bytes(b"no")
    predict(asked(conf=0.01, save=False))
    out = capsys.readouterr().out
    assert "skipped: " in out and "bad.png" in out and "3 images" in out
    for path in folder.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(DataError, match="not one image of 4 could be read"):
        predict(asked())


def test_a_batch_of_mixed_sizes_finds_what_single_images_do(weights: Path, folder: Path) -> None:
    model = RFLA(weights)
    together = model.predict(folder, conf=0.01, batch=3, device="cpu")
    alone = list(model.predict(folder, conf=0.01, batch=1, device="cpu", stream=True))
    assert (
        [r.path for r in together]
        == [r.path for r in alone]
        == sorted(str(p) for p in folder.iterdir())
    )
    for one, other in zip(together, alone, strict=True):
        assert one.orig_shape == other.orig_shape
        height, width = one.orig_shape
        assert (one.boxes.xyxy <= [width, height, width, height]).all() and (
            one.boxes.xyxy >= 0
        ).all()
        np.testing.assert_allclose(one.boxes.conf, other.boxes.conf, atol=1e-6)
        np.testing.assert_allclose(one.boxes.xyxy, other.boxes.xyxy, atol=1e-4)


def test_a_batch_that_memory_cannot_hold_is_halved(
    weights: Path, memory_for: Callable[[int], list[int]]
) -> None:
    """Of 7 slices in a pass the GPU holds 3: it tries 7 and 4 once, then 2 at a time."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 448, 3), np.uint8)
    given = {"slice": 64, "overlap": 0, "conf": 0.01, "device": "cpu", "imgsz": 64}
    (whole,) = RFLA(weights).predict(pixels, batch=7, **given)
    tried = memory_for(3)
    (halved,) = RFLA(weights).predict(pixels, batch=7, **given)
    assert tried == [7, 4, 2, 2, 2, 1]
    np.testing.assert_allclose(halved.boxes.xyxy, whole.boxes.xyxy, atol=1e-4)
    memory_for(0)
    with pytest.raises(RflaError, match="out of memory with one input of 64 px: use a smaller"):
        RFLA(weights).predict(pixels, batch=7, **given)


def test_batches_on_a_gpu(weights: Path, asked: Callable[..., Config]) -> None:
    """As many inputs as 16 of 800 px hold pixels, at most 16; what is given counts."""
    model = load_trained(weights)

    def batch(live: bool = False, on_gpu: bool = True, **given: Any) -> int:
        device = torch.device("cuda" if on_gpu else "cpu")
        return PredictOptions.from_config(asked(**given), model, device=device, live=live).batch

    assert [batch(imgsz=side) for side in (320, 800, 1600, 6400)] == [16, 16, 4, 1]
    assert batch(batch=5) == 5
    assert (batch(batch=-1), batch(batch=-1, on_gpu=False)) == (16, 1)
    assert (batch(live=True), batch(live=True, batch=3)) == (1, 3)
    assert batch(on_gpu=False) == 2


def test_classes(weights: Path, folder: Path) -> None:
    found = RFLA(weights).predict(str(folder), conf=0.01, classes=["car"], device="cpu")
    assert {int(label) for result in found for label in result.boxes.cls} <= {1}
    assert class_indices(["car", 0, "1"], ["ship", "car"]) == [1, 0, 1]
    with pytest.raises(
        ConfigError, match="classes=cat: the model has ship, car; did you mean 'car'"
    ):
        class_indices(["cat"], ["ship", "car"])
    with pytest.raises(ConfigError, match="classes=7"):
        class_indices([7], ["ship", "car"])


def test_the_network_is_built_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rfla.predict.model as source

    built = []
    original = source.load_trained
    monkeypatch.setattr(
        source, "load_trained", lambda *given: built.append(given) or original(*given)
    )
    model, array = RFLA(weights), np.zeros((40, 60, 3), np.uint8)
    sizes = [len(model.predict(array, conf=0.0, max_det=n, device="cpu")[0]) for n in (3, 7, 3)]
    assert (sizes, len(built)) == ([3, 7, 3], 1)
    model.predict(array, device="cpu", **{"test.nms_pre": 10})
    assert len(built) == 1
    os.utime(weights)
    model.predict(array, device="cpu")
    assert len(built) == 2  # another file by the same name


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_one_slice_is_the_whole_image(weights: Path) -> None:
    model, array = RFLA(weights), noise(60, 64)
    whole = model.predict(array, conf=0.0, imgsz=64, device="cpu")[0].boxes
    sliced = model.predict(array, conf=0.0, imgsz=64, device="cpu", slice=64, overlap=16)[0].boxes
    for one, other in ((whole.xyxy, sliced.xyxy), (whole.conf, sliced.conf)):
        np.testing.assert_array_equal(one, other)


def test_slices_are_their_predictions_merged(weights: Path) -> None:
    """100 x 130 px in slices of 64 px: what single predictions of the slices give, merged."""
    model, array = RFLA(weights), noise(100, 130)
    settings: dict[str, Any] = {"conf": 0.0, "imgsz": 64, "device": "cpu", "max_det": 50}
    tiles = plan_tiles(100, 130, 64, 20)
    alone = [model.predict(array[y1:y2, x1:x2], **settings)[0].boxes for x1, y1, x2, y2 in tiles]
    found = [(boxes.xyxy, boxes.conf, boxes.cls) for boxes in alone]
    for rule in ("seam", "nms", "none"):
        expected = merge_tiles(found, tiles, (100, 130), merge=rule)  # type: ignore[arg-type]
        order = np.argsort(-expected[1], kind="stable")
        for batch in (1, 4):
            sliced = {"slice": 64, "overlap": 20, "merge": rule, "batch": batch}
            boxes = model.predict(array, **settings, **sliced)[0].boxes
            np.testing.assert_allclose(boxes.xyxy, expected[0][order], atol=1e-4)
            np.testing.assert_allclose(boxes.conf, expected[1][order], atol=1e-6)


def test_merging_is_a_part_of_postprocessing(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is a second later at each look: four slices and the end, a second each."""
    monkeypatch.setattr("rfla.predict.image_jobs.perf_counter", itertools.count().__next__)
    (result,) = RFLA(weights).predict(noise(100, 100), slice=64, overlap=28, device="cpu")
    seconds, milliseconds = divmod(result.speed["postprocess"], 1000)
    assert seconds == 5 and milliseconds > 0
    assert list(result.speed) == ["preprocess", "inference", "postprocess"]


def test_slices_of_several_images_share_batches(weights: Path, folder: Path) -> None:
    model = RFLA(weights)
    settings: dict[str, Any] = {"conf": 0.0, "imgsz": 64, "device": "cpu", "slice": "auto"}
    many = model.predict(folder, batch=5, **settings)
    assert [result.orig_shape for result in many] == [(64, 64), (40, 90), (70, 30)]
    for result in many:
        one = model.predict(result.path, batch=1, **settings)[0]
        assert len(one) == len(result)
        np.testing.assert_allclose(one.boxes.xyxy, result.boxes.xyxy, atol=1e-3)


def test_an_overlap_that_is_too_large(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"overlap=64 with slices of 64 px: must be below"):
        RFLA(weights).predict(noise(100, 100), slice=64, overlap=64, device="cpu", stream=True)


def test_what_is_shrunk_or_cut_off_is_said(
    asked: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(asked(conf=0.0, save=False, imgsz=32, verbose=False))
    out = capsys.readouterr().out
    assert (
        "note: 3 of 3 images are larger than imgsz=32: objects are shrunk up to 2.81 times "
        "(90 x 40 px); slice=32 keeps their size" in out
    )
    square = tmp_path / "square.png"
    cv2.imwrite(str(square), noise(32, 32))
    predict(asked(source=str(square), conf=0.0, save=False, imgsz=32, max_det=4))
    out = capsys.readouterr().out
    assert "note: 1 of 1 images reached max_det=4: boxes beyond it are left out" in out
    predict(asked(conf=0.999, save=False, imgsz=96))
    assert "note: " not in capsys.readouterr().out


def test_python_says_it_by_logging(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = RFLA(weights)
    for _ in range(2):  # frames of a camera: what holds for each is said once
        model.predict(noise(64, 128), imgsz=64, conf=0.9, device="cpu")
    assert caplog.text.count("1 of 1 images are larger than imgsz=64") == 1


def test_python_writes_on_request(weights: Path, folder: Path, tmp_path: Path) -> None:
    model, project = RFLA(weights), tmp_path / "out"
    settings: dict[str, Any] = {"conf": 0.0, "max_det": 2, "device": "cpu"}
    model.predict(folder, **settings)
    assert not project.exists()
    model.predict(folder, save=True, save_txt=True, project=str(project), name="x", **settings)
    names = {str(path.relative_to(project / "x")) for path in (project / "x").rglob("*.*g")}
    assert names == {"a.png", "b.png", "c.png"}
    assert (project / "x" / "labels" / "a.txt").exists()
    for result in model.predict(
        folder, save_crop=True, project=str(project), name="y", stream=True, **settings
    ):
        assert len(result) == 2
    assert len(list((project / "y" / "crops").rglob("*.png"))) == 6
    assert len(json.loads((project / "y" / "predictions.json").read_text())) == 6
    with pytest.raises(
        ConfigError, match=r"name: nothing is written without save=True, save_\w+=True"
    ):
        model.predict(folder, name="z", **settings)


def test_files_arrays_and_pil_give_the_same_boxes(weights: Path, folder: Path) -> None:
    model, path = RFLA(weights), folder / "b.png"
    bgr = cv2.imread(str(path))
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    read_only = rgb.copy()
    read_only.setflags(write=False)
    forms = {
        "array": (rgb, "rgb"),
        "view": (bgr[..., ::-1], "rgb"),
        "bgr": (bgr, "bgr"),
        "flipped twice": (rgb[::-1][::-1], "rgb"),
        "read-only": (read_only, "rgb"),
        "16 bit": (rgb.astype(np.uint16) * 257, "rgb"),
        "PIL": (Image.fromarray(rgb), "rgb"),
        "tensor": (torch.from_numpy(rgb).permute(2, 0, 1), "rgb"),
    }
    expected = model.predict(path, conf=0.0, device="cpu")[0].boxes
    for name, (source, channels) in forms.items():
        boxes = model.predict(source, channels=channels, conf=0.0, device="cpu")[0].boxes  # type: ignore[call-overload]
        np.testing.assert_array_equal(boxes.xyxy, expected.xyxy, err_msg=name)


def test_a_source_is_never_written_over(
    asked: Callable[..., Config], weights: Path, folder: Path
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    with pytest.raises(ExistingRunError, match=r"in: holds the source .*png, and exist_ok=true"):
        predict(asked(**place))
    with pytest.raises(ExistingRunError, match="give another project= or name="):
        RFLA(weights).predict(folder, save=True, device="cpu", **place)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_goes_to_another_process(weights: Path) -> None:
    """It was used, so that it holds a network, and is built anew where it is unpacked."""
    model, array = RFLA(weights), noise(64, 64)
    first = model.predict(array, conf=0.0, device="cpu")[0].boxes
    again = pickle.loads(pickle.dumps(model)).predict(array, conf=0.0, device="cpu")[0].boxes
    np.testing.assert_array_equal(again.xyxy, first.xyxy)


def test_threads_that_share_a_model_keep_their_own_limits(weights: Path) -> None:
    model = RFLA(weights)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def counts(most: int) -> set[int]:
        found = [model.predict(image, conf=0.0, imgsz=64, max_det=most) for _ in range(8)]
        return {len(results) for (results,) in found}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(counts, [3, 10, 3, 10])) == [{3}, {10}, {3}, {10}]


def test_classes_do_not_share_a_place_with_agnostic_nms(weights: Path) -> None:
    model, array = RFLA(weights), noise(64, 64)
    settings: dict[str, Any] = {"conf": 0.0, "iou": 0.5, "device": "cpu"}
    apart = model.predict(array, **settings)[0].boxes
    together = model.predict(array, agnostic_nms=True, **settings)[0].boxes
    assert 0 < len(together) < len(apart)
    overlap = box_iou(*(torch.from_numpy(together.xyxy),) * 2)
    assert overlap.triu(1).nan_to_num().max() <= 0.5


def test_what_is_found_before_an_interrupt_is_kept(
    asked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Outputs.write, []

    def interrupted(outputs: Outputs, results: Results) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(results.path)
        original(outputs, results)

    monkeypatch.setattr(Outputs, "write", interrupted)
    cfg = asked(conf=0.0, max_det=3, save=False)
    with pytest.raises(KeyboardInterrupt):
        predict(cfg)
    rows = json.loads(Path(cfg.project, "predict", "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {"a.png", "b.png"}


def files_of(run: Path) -> dict[str, bytes]:
    """Everything that a run left, but its settings, which name it."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "args.yaml")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.mark.parametrize("cut_off", [False, True], ids=["Ctrl-C", "cut off while writing"])
def test_a_run_that_was_stopped_goes_on(
    asked: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cut_off: bool,
) -> None:
    """Images that were done are not run again; the outputs are those of a run without a stop."""
    original, seen = Outputs.write, []

    def watched(outputs: Outputs, results: Results) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(Path(results.path).name)
        original(outputs, results)

    changes = {"conf": 0.0, "max_det": 3, "save_txt": True, "save_csv": True}
    whole = predict(asked(name="whole", **changes)).run_dir
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Outputs, "write", watched)
        predict(asked(name="stopped", **changes))
    run = whole.with_name("stopped")
    assert f"go on: rfla predict resume={run}" in capsys.readouterr().out
    if cut_off:
        done = run / ".done.0.jsonl"
        done.write_bytes(done.read_bytes()[:-20])
    seen.clear()
    monkeypatch.setattr(
        Outputs, "write", lambda *given: (seen.append(given[1].path), original(*given))
    )
    stream = Predictor.stream
    monkeypatch.setattr(
        Predictor,
        "stream",
        lambda *given: (replace(found, speed={"inference": 30.0}) for found in stream(*given)),
    )
    resumed = predict(load_config({"resume": str(run), "batch": 2}, mode="predict"))
    assert resumed.run_dir == run
    assert [Path(path).name for path in seen] == (["b.png", "c.png"] if cut_off else ["c.png"])
    assert files_of(run) == files_of(whole)
    out = capsys.readouterr().out
    assert "3 images, 9 detections" in out and "; inference 30.0 ms an image" in out

    with pytest.raises(ExistingRunError, match="nothing to resume; the run is complete"):
        predict(load_config({"resume": str(run)}, mode="predict"))
    with pytest.raises(ConfigError, match="resume=true: no run of predict that was stopped"):
        load_config({"resume": True, "project": str(run.parent)}, mode="predict")
    with pytest.raises(ConfigError, match=r"conf=0\.5 cannot be changed on resume"):
        load_config({"resume": str(run), "conf": 0.5}, mode="predict")


def test_a_call_does_not_change_what_an_earlier_one_keeps(weights: Path) -> None:
    """A stream that is read later keeps its own limits: of 5 boxes, not the 2 of another call."""
    model, image = RFLA(weights), np.full((64, 64, 3), 90, np.uint8)
    stream = model.predict([image], conf=0.0, max_det=5, device="cpu", stream=True)
    assert len(model.predict(image, conf=0.0, max_det=2, device="cpu")[0]) == 2
    assert len(next(stream)) == 5


def test_predictions_are_read_by_val(
    asked: Callable[..., Config], folder: Path, tmp_path: Path
) -> None:
    """The boxes of `predict` as ground truth: `read_detections` finds the images by name."""
    run = predict(asked(conf=0.0, max_det=3, save=False)).run_dir
    images = [
        {"id": number, "file_name": name, "height": 64, "width": 64}
        for number, name in enumerate(("a.png", "b.png", "c.png"), start=7)
    ]
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}]
    truth = {"images": images, "annotations": [], "categories": categories}
    gt = read_ground_truth(truth)
    found = read_detections(run / "predictions.json", gt, lambda text: None)
    assert np.bincount(found.image_index).tolist() == [3, 3, 3]


def test_a_new_prediction_into_the_directory_of_a_stopped_one(
    asked: Callable[..., Config], tmp_path: Path
) -> None:
    """What the other had done is not taken for its own on resume."""
    run = predict(asked(name="r", save=False)).run_dir
    left = run / ".done.0.jsonl"
    left.write_text('{"of": "another run"}\n')
    predict(asked(name="r", save=False, exist_ok=True))
    assert not left.exists()


def test_a_model_stays_its_file_in_another_directory(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a relative path; the other directory has a file of that name too."""
    image = np.full((64, 64, 3), 99, np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "x.safetensors").write_bytes(weights.read_bytes())
    (tmp_path / "b" / "x.safetensors").write_bytes(b"another file")
    monkeypatch.chdir(tmp_path / "a")
    model = RFLA("x.safetensors")
    before = model.predict(image, conf=0.01)[0]
    monkeypatch.chdir(tmp_path / "b")
    assert model.predict(image, conf=0.01)[0].boxes.conf.tolist() == before.boxes.conf.tolist()
    assert model.names == ("ship", "car")
    (tmp_path / "b" / "fcos_p2").touch()  # no suffix: the zoo's model is meant
    assert RFLA("fcos_p2").model == "fcos_p2"


def test_a_programs_defaults_of_torch_do_not_matter(weights: Path) -> None:
    image = np.full((64, 64, 3), 99, np.uint8)
    expected = RFLA(weights).predict(image, conf=0.01, device="cpu")[0].boxes.conf
    torch.set_default_dtype(torch.float64)
    try:
        found = RFLA(weights).predict(image, conf=0.01, device=torch.device("cpu"))[0]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found.boxes.conf, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".png", "x/" * 3000 + "a.png"])
def test_names_that_no_file_system_takes(weights: Path, name: str) -> None:
    with pytest.raises(RflaError):
        RFLA(name)
    with pytest.raises(RflaError):
        RFLA(weights).predict(name)


def test_open_files_are_no_pictures(weights: Path) -> None:
    for file in (io.BytesIO(b"x"), io.StringIO("a.png")):
        with pytest.raises(DataError, match=r"source is .*, a (Bytes|String)IO; "):
            RFLA(weights).predict(file)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "given", "words"),
    [
        (([[0, 0, 4, 4]], ["a"], [0]), {}, "tile 0: scores that are not all finite numbers"),
        (([[0, 0, 4, 4]], [0.5], [float("nan")]), {}, "tile 0: labels that are not all finite"),
        (([[0, 0, 4, float("inf")]], [0.5], [0]), {}, "tile 0: boxes that are not all finite"),
        (([[0, 0, 4, 4]], [0.5], [0]), {"classes": "no"}, "classes='no': must be True or False"),
        (([[0, 0, 4, 4]], [0.5], [0]), {"shape": 20}, "shape=20: must be height and width"),
        (([[0, 0, 4, 4]], [0.5], [0]), {"shape": (float("nan"), 5)}, "must be height and width"),
    ],
)
def test_what_cannot_be_merged(entry: Any, given: dict[str, Any], words: str) -> None:
    tiles = plan_tiles(20, 20, 20, 0)
    with pytest.raises(ConfigError, match=words):
        merge_tiles([entry], tiles, **({"shape": (20, 20)} | given))


def test_what_a_killed_prediction_half_wrote_goes(
    asked: Callable[..., Config], tmp_path: Path
) -> None:
    """Names of `write_atomically` alone; a hidden file of somebody else stays."""
    run = predict(asked(save_txt=True)).run_dir
    (run / "labels" / ".a.txt.0123abcd").touch()
    (run / ".b.png.89abcdef").touch()
    (run / ".notes.of.mine").touch()
    predict(asked(save_txt=True, name=run.name, exist_ok=True))
    assert [path.name for path in run.rglob(".*") if path.name != ".lock"] == [".notes.of.mine"]


def test_the_label_of_an_image_is_one_line() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    none = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), (4, 4))
    assert Results(pixels, "in/a\nb.png", ("ship",), none).label == "in/a\\nb.png"
