"""Typed keyword arguments: generated from the schema, and what the Python interface takes."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import rfla
from rfla import RFLA
from rfla.cfg import Config, keywords, load_config
from rfla.cfg.keys import keys_of, sections_of
from rfla.cfg.keys_used import keys_used
from rfla.cfg.keyword_types import BY_POSITION, keywords_py
from rfla.cfg.schema import Mode


def test_the_file_is_up_to_date() -> None:
    text = Path(keywords.__file__).read_text(encoding="utf-8")
    assert text == keywords_py(), "out of date: run `python -m rfla.cfg.document`"


@pytest.mark.parametrize(
    ("verb", "typed", "method"),
    [
        ("train", keywords.TrainSettings, RFLA.train),
        ("val", keywords.ValSettings, RFLA.val),
        ("predict", keywords.PredictSettings, RFLA.predict),
    ],
)
def test_a_method_takes_what_its_verb_uses(verb: Mode, typed: type, method: object) -> None:
    used = {key.name for _, keys in keys_used(verb) for key in keys} - set(BY_POSITION)
    sections = set(sections_of(Config)) if verb == "train" else {"test"}
    assert set(typed.__annotations__) == used | sections | {"cfg"}
    assert method.__annotations__["settings"].__args__[0] is typed


def test_sections_have_the_keys_of_the_schema() -> None:
    hints = get_type_hints(keywords.TrainSettings)
    for section in sections_of(Config):
        kinds = [hints[section], *get_args(hints[section])]
        typed = next(kind for kind in kinds if hasattr(kind, "__total__"))
        own = {name for name in keys_of(Config) if name.startswith(f"{section}.")}
        assert {f"{section}.{name}" for name in typed.__annotations__} == own


def test_types_as_they_are_written() -> None:
    hints = keywords.TrainSettings.__annotations__
    assert hints["epochs"] is int and hints["amp"] == bool | hints["amp"].__args__[1]
    assert str(hints["resume"]) == "bool | str | os.PathLike[str]"


@pytest.mark.parametrize("key", ["model", "data", "project", "source", "predictions", "resume"])
def test_paths_may_be_path_objects(key: str) -> None:
    path = Path("dir/net.yaml")
    values = {key: path} if key != "model" else {"model": Path("fcos")}
    assert getattr(load_config(values), key) == str(values[key])


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(rfla.__file__).parent / "py.typed").is_file()
