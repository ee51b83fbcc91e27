"""Settings that follow from others or from the machine, settled before a run starts and written to its `args.yaml`."""

from collections.abc import Mapping
from typing import Any

import torch

from rfla.cfg import Config, with_settings
from rfla.cfg.keys import show
from rfla.engine.device import cpu_has_bfloat16
from rfla.engine.optimizer import scaled_steps

RECIPE_EPOCHS = 12  # the length of run that the default lr_steps belong to

# Elsewhere `classes=` and `save=` change a training: who types them here should know.
OF_OTHER_VERBS = frozenset(
    {
        "source",
        "save",
        "save_txt",
        "save_conf",
        "classes",
        "line_width",
        "show_labels",
        "predictions",
        "save_json",
    }
)

# Ends within 6 minutes on two cores. For data=demo alone: with a person's own data nothing is
# chosen for them.
CPU_DEMO: Mapping[str, Any] = {
    "backbone.name": "resnet18",
    "neck.width": 64,
    "head.width": 64,
    "head.depth": 2,
    "head.norm": "gn",
    "imgsz": 256,
    "batch": 2,
    "epochs": 4,
    # What counts is how many objects are seen in the time: a mosaic holds 1.6 times as many, and
    # small steps are many.
    "aug.mosaic": 1.0,
    "aug.zoom": 0.0,
    "aug.hsv_h": 0.0,
    "aug.hsv_s": 0.0,
    "aug.hsv_v": 0.0,
    "optimizer": "adamw",
    "lr0": 1e-3,
    "weight_decay": 0.05,
    "cos_lr": True,
    "ema": 0.98,
    "pretrained": False,
}
# Where the processor multiplies bfloat16 in hardware, an epoch takes half the time: train longer.
CPU_DEMO_BFLOAT16: Mapping[str, Any] = {"amp": "bf16", "epochs": 8}


def random_start_advice(cfg: Config) -> tuple[str, ...]:
    """Return a line for a run from random weights that would take the authors' SGD, chosen for an ImageNet backbone."""
    if cfg.optimizer != "sgd" or "optimizer" in cfg.given:
        return ()
    norm = (
        " head.norm=gn"
        if cfg.detector in ("fcos", "retinanet", "autoassign") and cfg.head.norm == "none"
        else ""
    )
    return (
        "random weights: SGD as in the paper needs a long run; a short one learns far more with "
        f"optimizer=adamw lr0=0.001 weight_decay=0.05 cos_lr ema=0.998{norm}",
    )


def settle(cfg: Config, device: torch.device) -> tuple[Config, list[str]]:
    """Fill in what was left open, for a run on `device`.

    Returns:
        The settings, and a line for the person about each choice that was made for them.
    """
    if cfg.resume:  # everything was settled when the run began
        return cfg, []
    changes: dict[str, Any] = {}
    idle = sorted(cfg.given & OF_OTHER_VERBS)
    notes = [f"given, but of no use in training: {', '.join(idle)}"] if idle else []
    if cfg.data == "demo" and device.type == "cpu":
        recipe = {**CPU_DEMO, **(CPU_DEMO_BFLOAT16 if cpu_has_bfloat16() else {})}
        changes = {key: value for key, value in recipe.items() if key not in cfg.given}
        shown = " ".join(f"{key}={show(value)}" for key, value in changes.items())
        notes.append(
            f"data=demo on a CPU: small settings for the keys that you did not give: {shown}"
        )
    epochs = changes.get("epochs", cfg.epochs)
    if "lr_steps" not in cfg.given and epochs != RECIPE_EPOCHS:
        changes["lr_steps"] = scaled_steps(cfg.lr_steps, RECIPE_EPOCHS, epochs)
    return (with_settings(cfg, changes) if changes else cfg), notes
