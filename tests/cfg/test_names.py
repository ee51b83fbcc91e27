"""Names are declared once in the schema, and the parts they stand for exist; more can be added."""

from collections.abc import Iterable
from typing import get_args

import pytest

from rfla.assign import DISTANCES
from rfla.assign.hierarchical import CONFLICTS
from rfla.cfg import Config, load_config, model_config, model_schema
from rfla.cfg.keys import keys_of
from rfla.errors import ConfigError
from rfla.models.backbones.build import BACKBONES
from rfla.models.zoo import DETECTORS
from rfla.ops.losses import BoxLoss


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("detector", DETECTORS),
        ("backbone.name", BACKBONES),
        ("assigner.distance", DISTANCES),
        ("assigner.conflict", CONFLICTS),
        ("loss.box", get_args(BoxLoss)),
    ],
)
def test_every_name_has_its_part(key: str, parts: Iterable[str]) -> None:
    assert sorted(keys_of(Config)[key].options) == sorted(parts)


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (model_schema.DETECTORS, "detector"),
        (model_schema.BACKBONES, "backbone.name"),
        (model_schema.DISTANCES, "assigner.distance"),
    ],
)
def test_a_name_can_be_added(names: list[str], key: str) -> None:
    """One entry: then it is accepted, listed in the help and suggested for a slip."""
    with pytest.raises(ConfigError, match=rf"{key}=toy: must be one of {', '.join(names)} \(def"):
        load_config({key: "toy"})
    names.append("toy")
    try:
        assert load_config({key: "toy"}).given == {key}
        assert keys_of(Config)[key].kind.endswith(", toy")
        with pytest.raises(ConfigError, match="did you mean 'toy'"):
            model_config("fcos", settings={key: "toyy"})
    finally:
        names.remove("toy")
