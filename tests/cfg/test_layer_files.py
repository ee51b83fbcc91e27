"""What files of other people may set: a data YAML, a model YAML, a weights file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rfla.cfg import Config, load_config
from rfla.cfg.keys import keys_of
from rfla.cfg.layer_files import BY_DATA_YAML, BY_MODEL_YAML, model_names
from rfla.errors import ConfigError, RflaError

# The keys that decide where a run writes, what it reads and how much of a machine it takes.
FOR_THE_PERSON = [
    ("project", "/victim"),
    ("name", "precious"),
    ("exist_ok", True),
    ("resume", True),
    ("data", "other.yaml"),
    ("model", "other.yaml"),
    ("source", "/etc"),
    ("predictions", "/etc/passwd"),
    ("device", "0"),
    ("workers", 200),
    ("cache", "disk"),
    ("compile", True),
    ("save_txt", True),
    ("fraction", 1e-6),
    ("debug", True),
]


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(RflaError) as caught:
        load_config(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("key", "value"), [*FOR_THE_PERSON, ("batch", 64), ("epochs", 9)])
@pytest.mark.parametrize("section", ["settings", "model_settings"])
def test_a_data_yaml_sets_what_belongs_to_the_data(
    tmp_path: Path, key: str, value: Any, section: str
) -> None:
    path = tmp_path / "data.yaml"
    settings = {key: value} if section == "settings" else {"fcos": {key: value}}
    path.write_text(f"train: images/train\nnames: [a]\n{section}: {json.dumps(settings)}\n")
    line = refused({"model": "fcos", "data": str(path)})
    assert line.startswith(f"{path} ({section}): {key}=")
    assert "cannot be set by a data YAML, which recommends imgsz" in line


def test_a_data_yaml_is_refused_for_settings_of_other_models_too(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("train: x\nnames: [a]\nmodel_settings: {retinanet: {project: /victim}}\n")
    assert "project=/victim cannot be set" in refused({"model": "fcos", "data": str(path)})


@pytest.mark.parametrize(("key", "value"), FOR_THE_PERSON)
@pytest.mark.parametrize("section", ["", "assigners"])
def test_a_model_yaml_sets_what_belongs_to_the_model(
    tmp_path: Path, key: str, value: Any, section: str
) -> None:
    path = tmp_path / "net.yaml"
    settings = {key: value} if not section else {"assigners": {"rfla": {key: value}}}
    path.write_text(json.dumps({"detector": "fcos"} | settings))
    line = refused({"model": str(path)})
    assert line.startswith(f"{path}:1: {key}=") and "cannot be set by a model YAML" in line


@pytest.mark.parametrize(("key", "value"), [*FOR_THE_PERSON, ("epochs", 9)])
def test_a_weights_file_sets_its_model_alone(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {"model": {"detector": "fcos", key: value}}
    header = json.dumps({"__metadata__": {"rfla": json.dumps(metadata)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert f"unknown key '{key}'" in refused({"model": str(path)})


def test_the_lists_name_keys_that_exist() -> None:
    keys = keys_of(Config)
    for name in (*BY_DATA_YAML, *BY_MODEL_YAML):
        section = name.removesuffix(".*")
        assert name in keys or any(key.section == section for key in keys.values()), name


@pytest.mark.parametrize("data", ["aitod", "aitodv2", "demo", "dota2", "sodad", "tinyperson"])
@pytest.mark.parametrize("model", model_names())
def test_what_the_package_brings_conforms(model: str, data: str) -> None:
    assert load_config({"model": model, "data": data}).imgsz >= 256


def test_a_model_yaml_that_is_none_is_named_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "best.safetensors").touch()
    for name, message in (
        ("run", "did you mean .*/run/weights/best.safetensors\\?"),
        ("pipe.yaml", "is a named pipe; a file is needed"),
        ("empty.yaml", "holds no settings; a model YAML has at least detector:"),
        ("none.yaml", "no model '"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config({"model": str(tmp_path / name)})
