"""Settings that follow from others or from the machine, settled before a run starts."""

from collections.abc import Mapping
from typing import Any

import torch

from rfla.cfg import Config, with_settings
from rfla.cfg.keys import show
from rfla.cfg.recipes import RECIPES
from rfla.cfg.usage import unused
from rfla.engine.device import cpu_has_bfloat16
from rfla.engine.optimizer import scaled_steps

RECIPE_EPOCHS = 12  # the length of run that the default lr_steps belong to

# Where the processor multiplies bfloat16 in hardware, an epoch takes half the time: train longer.
DEMO_BFLOAT16: dict[str, Any] = {"amp": "bf16", "epochs": 8}


def random_start_advice(cfg: Config) -> tuple[str, ...]:
    """Return advice for random weights with the authors' SGD, chosen for an ImageNet backbone."""
    if cfg.optimizer != "sgd" or {"optimizer", "recipe"} & cfg.given:
        return ()
    return (
        "random weights: SGD as in the paper needs a long run; "
        "recipe=scratch learns far more in a short one",
    )


def fill_in(cfg: Config, device: torch.device) -> tuple[Config, list[str]]:
    """Fill in what was left open, for a run on `device`.

    Returns:
        The settings, and a line for the person about each choice that was made for them.
    """
    if cfg.resume:  # everything was settled when the run began
        return cfg, []
    changes: dict[str, Any] = {}
    idle = unused(cfg.given, "train")
    notes = [f"given, but of no use in training: {', '.join(idle)}"] if idle else []
    if cfg.recipe != "paper":
        notes.append(f"recipe={cfg.recipe}: {_shown(RECIPES[cfg.recipe].settings, cfg)}")
    elif cfg.data == "demo" and device.type == "cpu" and "recipe" not in cfg.given:
        demo = RECIPES["demo"].settings | (DEMO_BFLOAT16 if cpu_has_bfloat16() else {})
        changes = {key: value for key, value in demo.items() if key not in cfg.given}
        notes.append(f"data=demo on a CPU takes recipe=demo: {_shown(demo, cfg)}")
        changes["recipe"] = "demo"
    epochs = changes.get("epochs", cfg.epochs)
    if "lr_steps" not in cfg.given and epochs != RECIPE_EPOCHS:
        changes["lr_steps"] = scaled_steps(cfg.lr_steps, RECIPE_EPOCHS, epochs)
    return (with_settings(cfg, changes) if changes else cfg), notes


def _shown(settings: Mapping[str, Any], cfg: Config) -> str:
    """The settings of a recipe as typed, without those that the person gave another value."""
    shown = (f"{key}={show(value)}" for key, value in settings.items() if key not in cfg.given)
    return " ".join(shown)
