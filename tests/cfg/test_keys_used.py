"""What the help of a verb lists is what the verb uses."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from rfla.cfg import Config, load_config, model_part
from rfla.cfg.help_text import explain
from rfla.cfg.keys import keys_of, section_class, sections_of
from rfla.cfg.keys_used import keys_used, readers, unused
from rfla.cfg.model_schema import DETECTORS, AssignerConfig, AssignerName, ModelConfig
from rfla.cfg.schema import Mode
from rfla.cfg.two_stage_schema import RpnConfig
from rfla.models.zoo import sketch

PACKAGE = Path(__file__).resolve().parents[2] / "rfla"
# Where a verb's settings are looked at. What all verbs share (the run directory, the device) is
# in none of these.
FILES: dict[Mode, tuple[str, ...]] = {
    "val": ("engine/validator.py",),
    "predict": ("predict/command.py", "predict/options.py", "predict/outputs/*.py"),
}


def names(verb: Mode) -> set[str]:
    return {key.name for _, keys in keys_used(verb) for key in keys}


@pytest.mark.parametrize("verb", FILES)
def test_every_key_that_a_verb_looks_at_is_listed(verb: Mode) -> None:
    files = [path for pattern in FILES[verb] for path in PACKAGE.glob(pattern)]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    looked_at = set(re.findall(r"\bcfg\.([a-z_]+)", text)) & keys_of(Config).keys()
    assert looked_at and looked_at <= names(verb)


def test_every_flat_key_is_of_use_somewhere() -> None:
    verbs: tuple[Mode, ...] = ("train", "val", "predict")
    flat = {name for name in keys_of(Config) if "." not in name} - {"detector"}
    assert flat == set().union(*(names(verb) for verb in verbs))


def test_predict_is_not_explained_by_keys_of_training() -> None:
    text = explain("predict")
    listed = set(re.findall(r"^  ([a-z_0-9]+) ", text, re.M))
    assert {"source", "model", "conf", "classes", "save_txt", "imgsz"} <= listed
    assert not listed & {"epochs", "lr0", "patience", "data", "split", "seed", "recipe", "workers"}
    assert "\nSections ('rfla help SECTION'): test.*\n" in text
    assert all(f"{name}.*" in explain("train") for name in sections_of(Config))


def test_given_keys_without_use() -> None:
    given = {"model", "epochs", "conf", "head.width", "aug.fliplr", "recipe", "save_txt"}
    given |= {"backbone.weights"}
    others = ["aug.fliplr", "backbone.weights", "epochs", "recipe"]
    fcos, two_stages = ModelConfig(), ModelConfig(detector="faster_rcnn")
    assert unused(given, "predict", fcos) == others
    assert unused(given, "train", fcos) == ["save_txt"]
    assert unused({"loss.coding", "roi.width"}, "train", two_stages) == ["loss.coding"]
    assert unused({"loss.coding", "roi.width"}, "train", fcos) == ["roi.width"]


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("rfla", ["assigner.atss_topk", "assigner.center_radius"]),
        ("atss", ["assigner.center_radius", "assigner.topk"]),
        ("baseline", ["assigner.atss_topk", "assigner.topk"]),
    ],
)
def test_keys_of_another_rule(name: AssignerName, others: list[str]) -> None:
    given = {"assigner.atss_topk", "assigner.center_radius", "assigner.topk", "assigner.fields"}
    model = ModelConfig(assigner=AssignerConfig(name=name))
    assert unused(given, "train", model) == others


def test_given_detections_need_no_network() -> None:
    given = {"data", "split", "fraction", "conf", "iou", "max_det", "model", "imgsz", "slice"}
    assert unused(given, "val", load_config({"data": "d"})) == []
    judged = load_config({"data": "d", "predictions": "found.json"})
    assert unused(given, "val", judged) == ["conf", "imgsz", "iou", "max_det", "model", "slice"]


def test_the_end_of_a_cosine_and_steps_go_with_their_own_schedule() -> None:
    given = {"lrf", "lr_steps", "lr_gamma"}
    assert unused(given, "train", load_config({"cos_lr": False})) == ["lrf"]
    assert unused(given, "train", load_config({"cos_lr": True})) == ["lr_gamma", "lr_steps"]


def test_beta_is_read_where_the_loss_is_smooth() -> None:
    given = {"rpn.beta", "roi.beta"}
    smooth = ModelConfig(detector="faster_rcnn", rpn=RpnConfig(box_loss="smooth_l1"))
    assert unused(given, "train", smooth) == ["roi.beta"]
    assert unused(given, "train", ModelConfig()) == ["roi.beta", "rpn.beta"]


def test_an_architecture_that_was_added_reads_all() -> None:
    assert readers("loss.coding", ["added_by_somebody", "faster_rcnn"]) == ["added_by_somebody"]


def test_the_keys_of_an_architecture_are_those_that_building_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A section is watched while a network is built; keys that none reads then are read later."""
    read: set[str] = set()

    def watch(section: str, schema: type[BaseModel]) -> None:
        look_up = schema.__getattribute__

        def looked_at(self: BaseModel, name: str) -> object:
            read.add(f"{section}.{name}")
            return look_up(self, name)

        monkeypatch.setattr(schema, "__getattribute__", looked_at)

    for name, field in ModelConfig.model_fields.items():
        schema = section_class(field.annotation)
        if schema is not None:
            watch(name, schema)
    keys_read: dict[str, set[str]] = {}
    for detector in DETECTORS:
        config = model_part(load_config({"model": detector}))
        read.clear()
        sketch(config, 3)
        keys_read[detector] = read & keys_of(ModelConfig).keys()
    for key in set().union(*keys_read.values()):
        found = [detector for detector in DETECTORS if key in keys_read[detector]]
        assert readers(key, DETECTORS) == found, key
