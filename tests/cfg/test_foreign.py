"""Words of other tools are answered by what there is here."""

import pytest

from rfla.cfg import Config, load_config
from rfla.cfg.foreign import ALIASES, NO_KEYS, VERBS, foreign_model, foreign_network
from rfla.cfg.help_text import VERBS as OURS
from rfla.cfg.keys import keys_of
from rfla.errors import ConfigError


@pytest.mark.parametrize(
    "model",
    *[
        [
            *("yolov8n.pt", "yolo11x", "yolov5su.pt", "yolov8n.yaml", "YOLOv10b.onnx"),
            *("dir/yolov9c.pt", "rtdetr-l.pt", "rf-detr-base.pth", "sam2_b.pt", "FastSAM-s.pt"),
        ]
    ],
)
def test_other_networks(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model": model})
    line = str(caught.value)
    assert line.startswith(f"model={model}: a network of another tool")
    assert "rfla train model=fcos_p2 data=..." in line
    assert "rfla import" not in line  # which would only refuse it, too


@pytest.mark.parametrize("model", ["best.pt", "epoch_12.pth", "model.ckpt"])
def test_pickled_weights_may_be_of_either_kind(model: str) -> None:
    with pytest.raises(ConfigError, match=f"model={model}: pickled weights are not run") as caught:
        load_config({"model": model})
    assert f"rfla import weights={model}" in str(caught.value)
    assert "YOLO are another network" in str(caught.value)


@pytest.mark.parametrize("model", ["yolo.safetensors", "fcos", "sample.yaml", "my_yolo.yaml", "x"])
def test_others_are_let_through(model: str) -> None:
    assert foreign_network(model) == "" and foreign_model(model) == ""


@pytest.mark.parametrize("key", NO_KEYS)
def test_keys_without_a_counterpart(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^unknown key '{key}'; "):
        load_config({key: 1})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("samples_per_gpu", "batch= counts the images of a step on all devices"),
        ("workers_per_gpu", "did you mean workers (default 4)"),
        ("load_from", "weights are given by model=FILE.safetensors; 'rfla import'"),
        ("resume_from", "did you mean resume (default false)"),
        ("work_dir", "did you mean project (default runs)"),
        ("total_epochs", "did you mean epochs (default 12)"),
        ("launcher", "device=0,1 or torchrun"),
        ("degrees", "listed by 'rfla help aug'"),
        ("translate", "listed by 'rfla help aug'"),
        ("mixup", "listed by 'rfla help aug'"),
        ("label_smoothing", "there is no label smoothing"),
        ("dropout", "there is no dropout"),
        ("perform_standard_pred", "slice= predicts the slices alone"),
        ("no_standard_prediction", "slice= predicts the slices alone"),
        ("postprocess_match_threshold", "no threshold to set"),
        ("model_confidence_threshold", "did you mean conf (default none)"),
    ],
)
def test_words_of_mmdetection_ultralytics_and_sahi(key: str, words: str) -> None:
    """Their nearest spelling here (`rpn.samples`, `anchors`, `project`) would mislead."""
    with pytest.raises(ConfigError) as caught:
        load_config({key: 1})
    assert words in str(caught.value)
    assert " or " not in str(caught.value).partition("did you mean")[2]


def test_an_entry_goes_when_the_thing_is_there() -> None:
    assert not set(VERBS) & set(OURS)
    assert not (set(NO_KEYS) | set(ALIASES)) & set(keys_of(Config))
    assert not set(NO_KEYS) & set(ALIASES)
