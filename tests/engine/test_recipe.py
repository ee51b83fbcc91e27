"""Settings that a machine decides, and the advice for a start from random weights."""

import torch

from rfla.cfg import load_config
from rfla.engine import recipe
from rfla.engine.recipe import fill_in, random_start_advice

CPU = torch.device("cpu")


def test_advice_for_random_weights() -> None:
    (line,) = random_start_advice(load_config({"model": "fcos_p2", "data": "d"}))
    assert line.endswith("recipe=scratch learns far more in a short one")
    # Nobody is advised against what they chose.
    for chosen in ({"optimizer": "sgd"}, {"optimizer": "adamw"}, {"recipe": "paper"}):
        assert random_start_advice(load_config({"model": "fcos_p2", "data": "d"} | chosen)) == ()


def test_a_recipe_is_printed_without_what_was_given() -> None:
    cfg = load_config({"model": "fcos_p2", "data": "d", "recipe": "scratch", "ema": 0.9})
    settled, (line,) = fill_in(cfg, CPU)
    assert line == (
        "recipe=scratch: pretrained=false optimizer=adamw lr0=0.001 weight_decay=0.05 "
        "cos_lr=true head.norm=gn"
    )
    assert (settled.lr0, settled.ema, settled.head.norm) == (0.001, 0.9, "gn")


def test_the_demo_on_a_cpu_takes_its_recipe(monkeypatch) -> None:
    monkeypatch.setattr(recipe, "cpu_has_bfloat16", lambda: False)
    given = {"model": "fcos_p2", "data": "demo", "batch": 3}
    settled, (line,) = fill_in(load_config(given), CPU)
    assert line.startswith("data=demo on a CPU takes recipe=demo: backbone.name=resnet18")
    assert (settled.recipe, settled.head.width, settled.batch) == ("demo", 64, 3)
    assert settled.lr_steps == (3, 4)  # (8, 11) of 12 epochs, for 4
    # A recipe that was given is not replaced, nor is anything on a GPU.
    assert fill_in(load_config(given | {"recipe": "paper"}), CPU)[0].head.width == 256
    assert fill_in(load_config(given), torch.device("cuda"))[0].head.width == 256


def test_keys_of_other_verbs_are_named() -> None:
    cfg = load_config({"model": "fcos_p2", "data": "d", "save_txt": True, "classes": ["a"]})
    assert fill_in(cfg, CPU)[1] == ["given, but of no use in training: classes, save_txt"]
