"""Validation: classes by name, shards merged exactly, files, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfla.cfg import Config, load_config
from rfla.engine.inference import in_original_px, merge_detections
from rfla.engine.model_source import weights_metadata
from rfla.engine.trainer import train
from rfla.errors import ConfigError, DataError, MetricError
from rfla.metrics import Detections
from rfla.models.weights import load_weights, save_weights
from rfla.predict.validation import validate

Configure = Callable[..., Config]


@pytest.fixture
def weights(config: Configure) -> Path:
    return train(config(epochs=1, val=False)).best


@pytest.fixture
def judged(tiny_set: Path, tmp_path: Path) -> Callable[..., Config]:
    def give(model: Path | None, **changes: Any) -> Config:
        settings = {
            "data": str(tiny_set),
            "project": str(tmp_path / "runs"),
            "workers": 0,
            "device": "cpu",
        }
        return load_config(
            settings | ({"model": str(model)} if model else {}) | changes, mode="val"
        )

    return give


def renamed(path: Path, names: list[str], order: list[int]) -> Path:
    """The same weights with the classes in another order (rows of the class output moved along)."""
    state, metadata = load_weights(path)
    for key, tensor in state.items():
        if key.startswith("head.") and "cls" in key and tensor.shape[0] == len(order):
            state[key] = tensor[order].clone()
    new = path.with_name("renamed.safetensors")
    save_weights(new, state, metadata | {"names": names})
    return new


def test_class_order_does_not_matter(
    weights: Path, judged: Callable[..., Config], capsys: pytest.CaptureFixture
) -> None:
    plain = validate(judged(weights, plots=False, conf=0.0))
    swapped = validate(judged(renamed(weights, ["car", "ship"], [1, 0]), plots=False, conf=0.0))
    assert "matched by name" in capsys.readouterr().out
    assert swapped.figures == pytest.approx(plain.figures)


def test_no_class_in_common(weights: Path, judged: Callable[..., Config]) -> None:
    with pytest.raises(
        DataError, match="no class in common: the model has bus, tram; the data has ship, car"
    ):
        validate(judged(renamed(weights, ["bus", "tram"], [0, 1]), plots=False))


def test_single_class(weights: Path, judged: Callable[..., Config]) -> None:
    metrics = validate(judged(weights, plots=False, single_cls=True))
    assert [row["name"] for row in metrics.per_class] == ["object"]


def test_files_and_a_second_judgement_of_the_same_detections(
    weights: Path,
    judged: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second one by the files alone, and by pycocotools beside."""
    metrics = validate(judged(weights, save_json=True, conf=0.01, gallery=3))
    run = tmp_path / "runs" / "val"
    names = {path.name for path in run.iterdir()}
    assert {
        "args.yaml",
        "results.json",
        "report.html",
        "predictions.json",
        "val_batch0_pred.jpg",
    } <= names
    assert "weights" not in names
    assert "3 of 6 images" in (run / "report.html").read_text()
    told = json.loads((run / "results.json").read_text())
    assert told["metrics"]["ap50"] == pytest.approx(metrics.ap50, abs=1e-9)
    given = {"predictions": str(run / "predictions.json"), "engine": "pycocotools"}
    again = validate(judged(None, plots=False, **given))
    assert again.figures == pytest.approx(metrics.figures, abs=1e-9)
    text = capsys.readouterr().out
    assert "rfla and pycocotools" in text
    assert "largest difference of any precision or recall: 0.0e+00" in " ".join(text.split())


@pytest.mark.parametrize("name", ["d1_plain", "d3_odd_ids"])
def test_given_detections_are_judged_as_by_the_official_evaluator(
    parity_dir: Path, judged: Callable[..., Config], tmp_path: Path, name: str
) -> None:
    """`rfla val predictions=...` from annotations alone: the records' figures to 1e-9, no image."""
    folder = parity_dir / "aitod_eval"
    for side in ("gt", "dt"):
        (tmp_path / f"{side}.json").write_bytes(
            gzip.decompress((folder / f"{name}_{side}.json.gz").read_bytes())
        )
    (tmp_path / "data.yaml").write_text("images: nowhere\nval: gt.json\nprotocol: aitod\n")
    given = {
        "data": str(tmp_path / "data.yaml"),
        "predictions": str(tmp_path / "dt.json"),
        "plots": False,
    }
    metrics = validate(judged(None, **given))
    official = json.loads((folder / f"{name}_expected.json").read_text())["runs"][0]["stats"]
    ours = list(metrics.figures.values())
    del ours[1], official[1]  # AP25, which the official evaluator does not compute
    assert ours == pytest.approx(official, abs=1e-9)
    told = json.loads((tmp_path / "runs" / "val" / "results.json").read_text())
    assert {"images", "boxes", "detections", "metrics", "analysis"} <= set(told)


def test_given_detections_of_more_images_and_classes(
    judged: Callable[..., Config], tiny_set: Path
) -> None:
    """Perfect detections of the whole split are perfect on a part of it, and as one class."""
    truths = json.loads((tiny_set / "annotations" / "val.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    rows = [{key: row[key] for key in keys} | {"score": 0.5} for row in truths["annotations"]]
    path = tiny_set / "dets.json"
    path.write_text(json.dumps(rows))
    for changes in ({"fraction": 0.5}, {"single_cls": True}, {"single_cls": True, "fraction": 2}):
        metrics = validate(judged(None, predictions=str(path), plots=False, **changes))
        assert metrics.ap == pytest.approx(1.0)
        assert len(metrics.per_class) == (1 if "single_cls" in changes else 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocol: aitodd\n", "unknown protocol 'aitodd'.*did you mean 'aitod'"),
        ("protocol: [aitod]\n", "protocol"),
        ("sizes: {vt: [8, 4]}\n", "sizes: vt"),
        ("sizes: [8, 16]\n", "sizes"),
        ("sizes: {1: [8, 16]}\n", "sizes"),
    ],
)
def test_wrong_rules_are_refused_before_anything_else(
    judged: Callable[..., Config], tiny_set: Path, text: str, message: str
) -> None:
    source = tiny_set / "data.yaml"
    source.write_text(
        (source.read_text() if source.exists() else "val: annotations/val.json\n") + text
    )
    with pytest.raises(MetricError, match=message):
        validate(judged(None, predictions="nowhere.json", data=str(source)))


def test_a_model_that_was_never_trained(judged: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="fcos_p2 is not trained yet"):
        validate(judged(Path("fcos_p2")))


def test_no_image_can_be_read(weights: Path, judged: Callable[..., Config], tiny_set: Path) -> None:
    for path in (tiny_set / "images").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match="not one image of 6 could be read"):
        validate(judged(weights))


def test_shards_are_merged_in_the_order_of_one_process() -> None:
    whole = Detections(
        np.array([0, 0, 1, 2, 3, 3]),
        np.arange(24.0).reshape(6, 4),
        np.linspace(1, 0.5, 6),
        np.array([0, 1, 0, 1, 0, 1]),
    )
    shards = [
        Detections(
            whole.image_index[keep], whole.boxes[keep], whole.scores[keep], whole.labels[keep]
        )
        for keep in (whole.image_index % 2 == 0, whole.image_index % 2 == 1)
    ]
    merged = merge_detections(shards)
    for name in ("image_index", "boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_boxes_go_back_to_the_original_and_stay_inside() -> None:
    boxes = torch.tensor([[-2.0, 4, 30, 90]])
    moved = in_original_px({"boxes": boxes}, torch.tensor([2.0, 0.5]), (100, 10))
    assert moved["boxes"].tolist() == [[0, 8, 10, 100]]


def test_metadata_keeps_numbers_only() -> None:
    config = load_config({"model": "fcos_p2"})
    metadata = weights_metadata(config, ["a"], 64, {"ap": 0.1, "per_class": []}, {"epoch": 1})
    assert metadata["metrics"] == {"ap": 0.1}
    assert json.loads(json.dumps(metadata)) == metadata
