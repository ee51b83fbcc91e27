"""Names are declared once in the schema, and the parts they stand for exist; more can be added."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

import rfla
from rfla import names
from rfla.assign import DISTANCES
from rfla.assign.hierarchical import CONFLICTS
from rfla.cfg import Config, load_config, model_config, model_schema
from rfla.cfg.keys import keys_of
from rfla.errors import ConfigError
from rfla.models.backbones.build import BACKBONES
from rfla.models.zoo import DETECTORS

PACKAGE = Path(rfla.__file__).parent


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("detector", DETECTORS),
        ("backbone.name", BACKBONES),
        ("assigner.distance", DISTANCES),
        ("assigner.conflict", CONFLICTS),
    ],
)
def test_every_name_has_its_part(key: str, parts: Iterable[str]) -> None:
    assert sorted(keys_of(Config)[key].options) == sorted(parts)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("backbone.style", names.Style),
        ("neck.extra", names.Extra),
        ("head.norm", names.Norm),
        ("normalize.channels", names.Channels),
        ("assigner.name", names.AssignerName),
        ("assigner.fields", names.FieldsOf),
        ("assigner.conflict", names.Conflict),
        ("loss.box", names.BoxLoss),
        ("loss.coding", names.Coding),
        ("loss.quality", Literal["none", names.Quality]),
        ("rpn.box_loss", names.CodeLoss),
        ("roi.box_loss", names.CodeLoss),
        ("optimizer", names.OptimizerName),
        ("warmup", names.Warmup),
        ("cache", Literal["off", names.CachePlace]),
        ("pages", names.Pages),
        ("merge", names.MergeRule),
        ("merge_metric", names.MergeMetric),
    ],
)
def test_every_word_is_the_one_that_its_part_takes(key: str, names: Any) -> None:
    assert keys_of(Config)[key].options == list(get_args(names))


def test_no_word_is_typed_again() -> None:
    """A choice of two or more words stands in one file of the package: `keywords.py` is made."""
    typed: dict[tuple[str, ...], set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"Literal\[((?:\"\w+\",? ?){2,})\]", text):
            words = tuple(re.findall(r"\w+", found))
            typed.setdefault(words, set()).add(path.relative_to(PACKAGE).as_posix())
    again = {words: files - {"cfg/keywords.py"} for words, files in typed.items()}
    assert {words: files for words, files in again.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("names", "key", "words"),
    [
        (model_schema.DETECTORS, "detector", f"one of {', '.join(model_schema.DETECTORS)}"),
        (
            model_schema.BACKBONES,
            "backbone.name",
            "a name of a network in docs/models.md, or timm/NAME",
        ),
        (
            model_schema.DISTANCES,
            "assigner.distance",
            f"one of {', '.join(model_schema.DISTANCES)}",
        ),
    ],
)
def test_a_name_can_be_added(names: list[str], key: str, words: str) -> None:
    """One entry: then it is accepted, listed in the help and suggested for a slip."""
    must_be = words or rf"one of {', '.join(names)} \(def"
    with pytest.raises(ConfigError, match=rf"{key}=toy: must be {must_be}"):
        load_config({key: "toy"})
    names.append("toy")
    try:
        assert load_config({key: "toy"}).given == {key}
        assert keys_of(Config)[key].options[-1] == "toy"
        with pytest.raises(ConfigError, match="did you mean 'toy'"):
            model_config("fcos", settings={key: "toyy"})
    finally:
        names.remove("toy")
