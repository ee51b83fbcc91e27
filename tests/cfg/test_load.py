"""Layers of settings: which wins, what is known as given, and what may not be missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rfla.cfg import Config, load_config, load_saved, model_part, saved_model_config, with_settings
from rfla.cfg.document import to_yaml
from rfla.cfg.keys import keys_of
from rfla.errors import ConfigError, RflaError, WeightsError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def weights_file(path: Path, metadata: Any) -> str:
    """The smallest safetensors file with metadata of ours: a header and no tensor."""
    header = json.dumps({"__metadata__": {"rfla": json.dumps(metadata)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return str(path)


def test_precedence(tmp_path: Path) -> None:
    """Schema < model YAML < data YAML < cfg file < what was typed.

    Each layer moves one more key.
    """
    model = write(
        tmp_path / "net.yaml", "detector: fcos\nlr0: 0.1\nwarmup_iters: 1\nimgsz: 320\nepochs: 3\n"
    )
    data = write(
        tmp_path / "data.yaml",
        "train: images/train\nnames: [a]\n"
        "settings: {warmup_iters: 2, imgsz: 640, aug: {flipud: 0.1}, test.max_det: 77}\n",
    )
    own = write(tmp_path / "my.yaml", "imgsz: 800\nepochs: 5\naug: {fliplr: 0.25}\n")
    cfg = load_config({"model": model, "data": data, "cfg": own, "epochs": 6}, mode="train")
    assert (cfg.weight_decay, cfg.lr0, cfg.warmup_iters) == (1e-4, 0.1, 2)
    assert (cfg.imgsz, cfg.epochs) == (800, 6)
    assert (cfg.aug.fliplr, cfg.aug.flipud) == (0.25, 0.1)
    assert cfg.max_det == cfg.test.max_det == 77
    assert cfg.given == {"model", "data", "imgsz", "epochs", "aug.fliplr"}


def test_zoo_model_and_its_baseline() -> None:
    cfg = load_config({"model": "fcos_p2"})
    assert (cfg.detector, cfg.assigner.name, cfg.neck.start_level, cfg.lr0) == (
        "fcos",
        "rfla",
        2,
        0.005,
    )
    assert cfg.given == {"model"}
    baseline = load_config({"model": "fcos_p2", "assigner": "baseline"})
    assert (baseline.assigner.name, baseline.loss.box) == (
        "baseline",
        "giou",
    )  # the model YAML's `assigners` section
    assert baseline.given == {"model", "assigner.name"}


def test_shorthand_nested_and_dotted_mean_the_same() -> None:
    texts = [
        {"backbone": "resnet18"},
        {"backbone.name": "resnet18"},
        {"backbone": {"name": "resnet18"}},
    ]
    assert len({to_yaml(load_config(text)) for text in texts}) == 1


def test_conf_iou_max_det_and_the_test_section_agree() -> None:
    """The flat keys and `test.*` are two faces of one number.

    Predict alone has a threshold of its own.
    """
    for mode, expected in ((None, 0.0), ("train", 0.0), ("val", 0.0), ("predict", 0.25)):
        given = {"model": "fcos_p2", "data": "d", "source": "s"}
        cfg = load_config(given, mode=mode)  # type: ignore[arg-type]
        assert cfg.conf == cfg.test.conf == expected
        assert cfg.test.score_thr == 0.05
    cfg = load_config({"conf": 0.4, "iou": 0.3, "max_det": 10, "test.conf": 0.9})
    assert (
        (cfg.conf, cfg.iou, cfg.max_det)
        == (cfg.test.conf, cfg.test.nms_iou, cfg.test.max_det)
        == (0.4, 0.3, 10)
    )
    cfg = load_config({"test.conf": 0.1, "model": "fcos", "source": "s"}, mode="predict")
    assert cfg.conf == 0.1


@pytest.mark.parametrize(
    ("given", "conf", "score_thr"),
    [
        ({}, 0.25, 0.05),
        ({"conf": 0.3}, 0.3, 0.05),
        # scores down to 0.01 are asked for: the model's own 0.05 must not cut before
        ({"conf": 0.01}, 0.01, 0.01),
        ({"conf": 0.01, "test.score_thr": 0.05}, 0.01, 0.05),
        ({"test.score_thr": 0.1}, 0.25, 0.1),
    ],
)
def test_conf_and_the_threshold_before_centerness(
    given: dict[str, float], conf: float, score_thr: float, tmp_path: Path
) -> None:
    cfg = load_config({"model": "fcos_p2", "source": "s", **given}, mode="predict")
    assert (cfg.test.conf, cfg.test.score_thr) == (conf, score_thr)
    path = tmp_path / "args.yaml"
    path.write_text(to_yaml(cfg), encoding="utf-8")
    assert load_saved(path) == cfg


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("device", 0, "0"),
        ("device", (0, 1), "0,1"),
        ("device", "[0, 1]", "0,1"),
        ("device", "CPU", "cpu"),
        ("device", None, "auto"),
        ("device", "cuda:0,cuda:1", "cuda:0,cuda:1"),
        ("cache", True, "ram"),
        ("cache", False, "off"),
        ("cache", "Disk", "disk"),
        ("optimizer", "AdamW", "adamw"),
        ("lr_steps", 8, (8,)),
        ("lr_steps", "8,11", (8, 11)),
        ("classes", "ship,3", ("ship", "3")),
        ("classes", [0, "ship"], (0, "ship")),
        ("freeze", "backbone", ("backbone",)),
        ("epochs", 100.0, 100),
        ("resume", "runs/train", "runs/train"),
    ],
)
def test_values_as_people_write_them(key: str, value: Any, expected: Any) -> None:
    assert getattr(load_config({key: value}), key) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr0": -0.01}, "lr0=-0.01: must be a number from 0 to 10 (default 0.005)"),
        ({"lr0": float("nan")}, "lr0=nan: must be a number"),
        ({"lr0": float("inf")}, "lr0=inf: must be a number"),
        ({"epochs": True}, "epochs=true: a number is needed here, not true or false (default 12)"),
        ({"epochs": "ten"}, "epochs=ten: must be a whole number of at least 1 (default 12)"),
        ({"epochs": 1.5}, "epochs=1.5: must be a whole number"),
        ({"epochs": 10**30}, "must be a whole number of at least 1, at most 100,000 (default 12)"),
        (
            {"roi.pos_iou": [0.5, 0.6]},
            "roi.pos_iou, roi.stage_weights and roi.stds need one value for each stage, 1 to 8",
        ),
        (
            {"anchors.pos_iou": 0.1, "anchors.neg_iou": 0.9},
            "anchors.neg_iou=0.9 must not be above anchors.pos_iou=0.1",
        ),
        ({"loss.box_weight": 1e30}, "must be a number above 0, at most 1,000,000 (default 1)"),
        (
            {"normalize.std": [0, 1, 1]},
            "normalize.std=[0,1,1]: must be a list of 3 numbers, each above 0 (default",
        ),
        (
            {"imgsz": [640, 640]},
            "imgsz=[640,640]: must be a whole number of at least 32 (default 800)",
        ),
        ({"batch": 0}, "batch=0: must be at least 1, or -1"),
        ({"conf": 1.5}, "conf=1.5: must be a number from 0 to 1 or none"),
        ({"cos_lr": "maybe"}, "cos_lr=maybe: must be true/false (default false)"),
        ({"optimizer": "sdg"}, "optimizer=sdg: must be one of sgd, adamw; did you mean 'sgd'?"),
        ({"model": 3}, "model=3: must be text or none"),
        ({"device": "gpu"}, "device=gpu: must be auto, cpu,"),
        ({"freeze": 10}, "freeze=10: must be names, for example [backbone]"),
        ({"freeze": [0, 1]}, "freeze=[0,1]: must be names, for example [backbone]"),
        ({"lr_steps": [11, 8]}, "lr_steps=[11,8]: must be epochs that rise"),
        ({"resume": 3.5}, "resume=3.5: must be true/false or text"),
        (
            {"assigner": 3},
            "assigner=3: assigner is a section; set its keys, for example assigner.name=rfla",
        ),
        (
            {"assigner": "rlfa"},
            "assigner.name=rlfa: must be one of rfla, baseline, atss; did you mean 'rfla'?",
        ),
        ({"aug": "none"}, "aug=none: aug is a section"),
        ({"aug": {"fliplr": 2}}, "aug.fliplr=2: must be a number from 0 to 1 (default 0.5)"),
        ({"normalize.mean": [1, 2]}, "normalize.mean=[1,2]: must be a list of 3 numbers"),
        ({"normalize.range": [255, 0]}, "the lowest value comes first, for example range="),
        ({"neck.width": 10**9}, "neck.width=1000000000: must be a whole number from 8 to 2048"),
        ({"backbone.name.x": 1}, "unknown key 'backbone.name.x'"),
        ({"topk": 3}, "unknown key 'topk'; did you mean assigner.topk (default [3,1])?"),
        ({"model": "fcos_p3"}, "no model 'fcos_p3'; a model is one of autoassign"),
        ({"model": "official.pth"}, "rfla import weights=official.pth"),
        ({"cfg": "nothing.yaml"}, "nothing.yaml: no such file"),
        ({"cfg": 3}, "cfg=3: must be a YAML file"),
        ({"a\nb": 1}, "unknown key"),
        ({"name": ""}, "name=''"),
        ({"source": "\ud800.png"}, "must be text that UTF-8 can hold"),
        ({"classes": ["car", "\udcff"]}, "must be text that UTF-8 can hold"),
    ],
)
def test_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RflaError) as caught:
        load_config(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nlr0: fast\n", "my.yaml:2: lr0=fast: must be a number from 0 to 10"),
        (
            "aug:\n  fliplr: 0.5\n  flipup: 1\n",
            "my.yaml:3: unknown key 'aug.flipup'; did you mean aug.flipud",
        ),
        ("cfg: my.yaml\n", "my.yaml:1: a settings file cannot name another"),
        ("epochs:\n  a: 1\n", "my.yaml:1: epochs="),
        ("name: on\n", "my.yaml:1: name=true: must be text or none"),  # YAML 1.1 reads `on` as true
        ("given: [lr0]\n", "my.yaml:1: given must list keys of this file"),
        ("1: 2\n", "my.yaml:1: unknown key '1'"),
    ],
)
def test_a_settings_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "my.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config({"cfg": path})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "values", "missing"),
    [
        ("train", {}, "model is missing"),
        ("train", {"model": "fcos_p2"}, "data is missing"),
        ("val", {"model": "fcos_p2"}, "data is missing"),
        ("val", {"data": "demo"}, "model is missing"),
        ("predict", {"model": "fcos_p2"}, "source is missing"),
    ],
)
def test_nothing_is_guessed(mode: Any, values: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"^{missing}: .*; for example: rfla {mode} "):
        load_config(values, mode=mode)


def test_detections_alone_need_no_model() -> None:
    assert load_config({"predictions": "dets.json", "data": "demo"}, mode="val").model is None


def test_frozen_and_changed_copies() -> None:
    cfg = load_config({"model": "fcos_p2", "conf": 0.3})
    with pytest.raises(ValidationError):
        cfg.epochs = 3  # type: ignore[misc]
    other = with_settings(cfg, {"imgsz": 256, "backbone.name": "resnet18", "test.conf": 0.1})
    assert (other.imgsz, other.backbone.name, other.conf, other.given) == (
        256,
        "resnet18",
        0.1,
        cfg.given,
    )
    assert cfg.imgsz == 800
    with pytest.raises(ConfigError, match="imgsz=0"):
        with_settings(cfg, {"imgsz": 0})


def test_args_yaml_reads_back(tmp_path: Path) -> None:
    cfg = load_config(
        {"model": "faster_rcnn", "assigner.topk": [2, 1], "classes": ["a", 2], "name": "über"}
    )
    path = tmp_path / "args.yaml"
    path.write_text(to_yaml(cfg), encoding="utf-8")
    saved = load_saved(path)
    assert saved == cfg and saved.given == cfg.given
    assert load_config({"cfg": str(path)}) == cfg


def test_model_sections_alone() -> None:
    part = model_part(load_config({"model": "fcos_p2", "conf": 0.3, "epochs": 1}))
    assert not hasattr(part, "epochs")
    assert part.test.conf == 0.3
    assert type(part).__name__ == "ModelConfig"


class TestWeightsFile:
    def test_model_sections_and_size_come_from_the_file(self, tmp_path: Path) -> None:
        small = load_config({"model": "fcos_p2", "backbone": "resnet18", "head.depth": 2})
        path = weights_file(
            tmp_path / "x.safetensors", {"model": model_part(small).model_dump(), "imgsz": 320}
        )
        cfg = load_config({"model": path, "data": "d"}, mode="val")
        assert (cfg.backbone.name, cfg.head.depth, cfg.imgsz) == ("resnet18", 2, 320)
        assert load_config({"model": path, "data": "d", "imgsz": 640}, mode="val").imgsz == 640
        assert (
            load_config({"model": path, "data": "d"}, mode="train").imgsz == 800
        )  # fine-tuning follows its own data

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"model": 3}, "does not describe a model"),
            ({}, "does not describe a model"),
            (
                {"model": {"backbone": {"name": "resnet18", "evil": 1}}},
                "unknown key 'backbone.evil'",
            ),
            ({"model": {"neck": {"width": 10**12}}}, "neck.width=1000000000000: must be"),
            ({"model": {"epochs": 3}}, "unknown key 'epochs'"),
        ],
    )
    def test_hostile_metadata(self, tmp_path: Path, metadata: Any, message: str) -> None:
        path = weights_file(tmp_path / "x.safetensors", metadata)
        with pytest.raises(RflaError) as caught:
            load_config({"model": path})
        assert message in str(caught.value) and path in str(caught.value)

    def test_missing_file(self) -> None:
        with pytest.raises(WeightsError, match="no such file"):
            load_config({"model": "nothing.safetensors"})


class TestResume:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        run = tmp_path / "runs" / "train3"
        cfg = load_config({"model": "fcos_p2", "data": "d", "epochs": 30, "lr0": 0.01})
        write(run / "args.yaml", to_yaml(cfg))
        write(run / "weights" / "last.state.safetensors", "")
        return run

    def test_settings_of_the_run_come_back(self, run: Path) -> None:
        cfg = load_config({"resume": str(run), "workers": 0}, mode="train")
        assert (cfg.resume, cfg.project, cfg.name) == (str(run), str(run.parent), "train3")
        assert (cfg.epochs, cfg.lr0, cfg.workers, cfg.model) == (30, 0.01, 0, "fcos_p2")
        assert cfg.given == {"model", "data", "epochs", "lr0", "resume", "workers"}

    def test_by_latest_and_by_weights_file(self, run: Path) -> None:
        latest = load_config({"resume": True, "project": str(run.parent)}, mode="train")
        by_file = load_config({"resume": str(run / "weights" / "last.safetensors")}, mode="train")
        assert latest.resume == by_file.resume == str(run)

    def test_the_conf_of_an_older_run_cuts_no_final_score(self, run: Path) -> None:
        """Before there was test.conf, args.yaml held today's test.score_thr as conf as well."""
        text = (run / "args.yaml").read_text()
        old = text.replace("\nconf: 0.0\n", "\nconf: 0.05\n").replace("{conf: 0.0, score", "{score")
        assert old.count("conf: 0.0") == old.count("conf: 0.05") == 1
        write(run / "args.yaml", old)
        cfg = load_config({"resume": str(run)}, mode="train")
        assert (cfg.conf, cfg.test.conf, cfg.test.score_thr) == (0.0, 0.0, 0.05)
        write(run / "args.yaml", old.replace("given: [", "given: [conf, "))
        assert load_config({"resume": str(run)}, mode="train").conf == 0.05

    def test_its_own_weights_are_no_other_model(self, run: Path) -> None:
        wanted = load_config({"resume": str(run)}, mode="train").model
        own = str(run / "weights" / "last.safetensors")
        assert load_config({"resume": str(run), "model": own}, mode="train").model == wanted
        with pytest.raises(ConfigError, match=r"model=other\.safetensors cannot be changed"):
            load_config({"resume": str(run), "model": "other.safetensors"}, mode="train")

    def test_repeating_a_setting_is_no_change(self, run: Path) -> None:
        assert (
            load_config(
                {"resume": str(run), "lr0": 0.01, "assigner.topk": [3, 1]}, mode="train"
            ).lr0
            == 0.01
        )

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"lr0": 0.5}, "lr0=0.5 cannot be changed on resume (the run has 0.01)"),
            ({"cfg": "x.yaml"}, "cfg and resume cannot be combined"),
            ({"resume": "nowhere"}, "resume=nowhere: no run there"),
            ({"resume": True}, "no run with a training state in "),
        ],
    )
    def test_refused(self, run: Path, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_config({"resume": str(run), "project": str(run / "none")} | values, mode="train")
        assert message in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(set(keys_of(Config)) - {"data", "model"})) | st.text(max_size=8),
        ANYTHING,
        max_size=3,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_values_give_settings_or_one_line(values: dict[str, Any]) -> None:
    try:
        cfg = load_config(values)
    except RflaError as error:
        assert len(str(error).splitlines()) <= 1
        assert len(str(error)) < 1500
    else:
        assert cfg.conf == cfg.test.conf


def test_a_data_set_recommends_for_single_detectors() -> None:
    """DOTA-v2's authors take topk (6, 1) for FCOS and (2, 1) for Faster R-CNN.

    RetinaNet keeps its own.
    """
    found = {
        model: load_config({"model": model, "data": "dota2"}).assigner.topk
        for model in ("fcos", "faster_rcnn")
    }
    assert found == {"fcos": (6, 1), "faster_rcnn": (2, 1)}
    assert load_config({"model": "retinanet", "data": "dota2"}).assigner.topk == (3, 1)


@pytest.mark.parametrize(("earlier", "now"), [("resnet50", "authors"), ("backbone", "traced")])
def test_fields_of_earlier_files_keep_their_meaning(earlier: str, now: str) -> None:
    assert load_config({"assigner": {"fields": earlier}}).assigner.fields == now


def test_withdrawn_settings_of_earlier_files() -> None:
    """Where they are off nothing depends on them; where they are on the file is of another rule."""
    earlier = {"assigner": {"rescue": False, "posterior": 0, "decay": 0.8}}
    assert saved_model_config(earlier, "x").assigner.decay == 0.8
    with pytest.raises(ConfigError, match=r"^x: unknown key 'assigner.posterior'"):
        saved_model_config({"assigner": {"posterior": 12}}, "x")
