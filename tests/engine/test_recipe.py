"""Settings that a machine decides, and the advice for a start from random weights."""

from rfla.cfg import load_config
from rfla.engine.recipe import random_start_advice


def test_advice_for_random_weights() -> None:
    dense = random_start_advice(load_config({"model": "fcos_p2", "data": "d"}))
    assert len(dense) == 1
    assert dense[0].endswith(
        "optimizer=adamw lr0=0.001 weight_decay=0.05 cos_lr ema=0.998 head.norm=gn"
    )
    two_stage = random_start_advice(load_config({"model": "faster_rcnn", "data": "d"}))
    assert two_stage[0].endswith("cos_lr ema=0.998")  # its head has no norm to set
    for chosen in ("sgd", "adamw"):  # whoever chose is not told
        assert (
            random_start_advice(load_config({"model": "fcos_p2", "data": "d", "optimizer": chosen}))
            == ()
        )
    words = dense[0].split("with ")[-1].split()
    taken = load_config(
        dict(word.split("=") if "=" in word else (word, True) for word in words) | {"model": "fcos"}
    )
    assert (taken.optimizer, taken.lr0, taken.head.norm, taken.cos_lr) == (
        "adamw",
        0.001,
        "gn",
        True,
    )
