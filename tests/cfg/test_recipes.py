"""Recipes: where they stand among the layers, and what each one is."""

from pathlib import Path

import pytest

from rfla.cfg import Config, load_config
from rfla.cfg.help_text import explain
from rfla.cfg.keys import keys_of
from rfla.cfg.recipes import RECIPES, Recipe
from rfla.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("model", ["fcos_p2", "faster_rcnn"])
def test_every_recipe_is_valid_and_explained(name: str, model: str) -> None:
    cfg = load_config({"model": model, "data": "d", "recipe": name}, mode="train")
    values = {key: cfg for key in RECIPES[name].settings}
    for key in values:
        value = cfg
        for part in key.split("."):
            value = getattr(value, part)
        assert value == RECIPES[name].settings[key]
    assert set(RECIPES[name].settings) <= set(keys_of(Config))
    assert f"recipe={name}: {RECIPES[name].about}" in " ".join(explain("recipe").split())


def test_between_the_data_and_the_person(tmp_path: Path) -> None:
    """Model YAML < data YAML < recipe < cfg file < what was typed."""
    data = tmp_path / "data.yaml"
    data.write_text("train: x\nnames: [a]\nsettings: {imgsz: 640, aug.mosaic: 0.5}\n")
    own = tmp_path / "my.yaml"
    own.write_text("recipe: demo\nlr0: 0.5\nhead.width: 32\n")
    given = {"model": "fcos_p2", "data": str(data), "cfg": str(own), "head.width": 128}
    cfg = load_config(given, mode="train")
    assert (cfg.imgsz, cfg.aug.mosaic, cfg.epochs) == (256, 1.0, 4)  # of the recipe
    assert (cfg.lr0, cfg.head.width, cfg.neck.width) == (0.5, 128, 64)
    assert cfg.given == {"model", "data", "recipe", "lr0", "head.width"}


def test_only_training_takes_a_recipe() -> None:
    given = {"model": "fcos_p2", "data": "d", "source": "s", "recipe": "scratch"}
    assert load_config(given, mode="train").head.norm == "gn"
    assert load_config(given, mode="val").head.norm == "none"
    assert load_config(given, mode="predict").head.norm == "none"


def test_random_weights_and_a_weights_file_contradict() -> None:
    given = {"model": "best.safetensors", "data": "d", "recipe": "scratch"}
    with pytest.raises(ConfigError, match="recipe=scratch starts from random weights, but best"):
        load_config(given, mode="train")


def test_a_recipe_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "toy", Recipe("for a test", {"epochs": 7}))
    assert load_config({"model": "fcos", "recipe": "toy"}).epochs == 7
    assert "recipe=toy: for a test" in explain("recipe")
    with pytest.raises(ConfigError, match=r"recipe=toi: must be one of paper, .*, toy; did you"):
        load_config({"recipe": "toi"})
