"""Settings that follow from others or from the machine, settled before a run starts and written to its `args.yaml`."""

from collections.abc import Mapping
from typing import Any

import torch

from rfla.cfg import Config, with_settings
from rfla.engine.schedule import scaled_steps

RECIPE_EPOCHS = 12  # the length of run that the default lr_steps belong to

# Ends within minutes on two cores. It is used for data=demo alone: with a person's own data nothing is chosen for them.
CPU_DEMO: Mapping[str, Any] = {
    "backbone.name": "resnet18",
    "neck.width": 96,
    "head.width": 96,
    "head.depth": 2,
    "imgsz": 256,
    "batch": 4,
    "epochs": 10,
    "optimizer": "adamw",
    "lr0": 1e-3,
    "weight_decay": 0.02,
    "cos_lr": True,
    "ema": 0.99,
    "pretrained": False,
}


def settle(cfg: Config, device: torch.device) -> tuple[Config, list[str]]:
    """Fill in what was left open, for a run on `device`.

    Returns:
        The settings, and a line for the person about each choice that was made for them.
    """
    if cfg.resume:  # everything was settled when the run began
        return cfg, []
    changes: dict[str, Any] = {}
    notes = []
    if cfg.data == "demo" and device.type == "cpu":
        changes = {key: value for key, value in CPU_DEMO.items() if key not in cfg.given}
        shown = " ".join(f"{key}={value}" for key, value in changes.items())
        notes.append(f"data=demo on a CPU: small settings for the keys that you did not give: {shown}")
    epochs = changes.get("epochs", cfg.epochs)
    if "lr_steps" not in cfg.given and epochs != RECIPE_EPOCHS:
        changes["lr_steps"] = scaled_steps(cfg.lr_steps, RECIPE_EPOCHS, epochs)
    return (with_settings(cfg, changes) if changes else cfg), notes
