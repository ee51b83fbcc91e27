"""What the help of a verb lists is what the verb uses."""

import re
from pathlib import Path

import pytest

from rfla.cfg import Config
from rfla.cfg.help_text import explain
from rfla.cfg.keys import keys_of, sections_of
from rfla.cfg.schema import Mode
from rfla.cfg.usage import keys_used, unused

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
    assert text.endswith("Sections ('rfla help SECTION'): test.*")
    assert all(f"{name}.*" in explain("train") for name in sections_of(Config))


def test_given_keys_without_use() -> None:
    given = {"model", "epochs", "conf", "head.width", "aug.fliplr", "recipe", "save_txt"}
    given |= {"backbone.weights"}
    assert unused(given, "predict") == ["aug.fliplr", "backbone.weights", "epochs", "recipe"]
    assert unused(given, "train") == ["save_txt"]
