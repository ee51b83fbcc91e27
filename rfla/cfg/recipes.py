"""Recipes: named sets of training settings, over the model and the data, under what you give.

An entry of `RECIPES` is all that a new one needs: the command line, the help, the documentation
and `recipe=` know it from there.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A named set of settings.

    Attributes:
        about: What it is for, in a few words.
        settings: Dotted keys with their values.
        random_weights: Whether it trains from random weights, so that none may be given.
    """

    about: str
    settings: dict[str, Any]
    random_weights: bool = False


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        "the settings of the model YAML: for the models of the paper the authors', SGD on an "
        "ImageNet backbone",
        {},
    ),
    "scratch": Recipe(
        "random weights in a short run, with mosaics but in the last fifth of it",
        {
            "pretrained": False,
            "optimizer": "adamw",
            "lr0": 0.001,
            "weight_decay": 0.05,
            "cos_lr": True,
            "ema": 0.998,
            "head.norm": "gn",
            "aug.mosaic": 1.0,
            "aug.close_mosaic": 0.2,
            "aug.zoom": 0.0,
        },
        random_weights=True,
    ),
    "best": Recipe(
        "dense models from random weights: the box code and class scores of rfd (without its "
        "second look, rfd is 0.009 to 0.031 AP ahead of fcos_p2 with recipe=scratch on three "
        "data sets, both without mosaics); see docs/ablations.md",
        {
            "loss.coding": "field",
            "loss.quality": "max",
            "loss.box": "giou",
            "loss.side_weight": 0.5,
            "head.norm": "gn",
            "pretrained": False,
            "batch": 4,
            "optimizer": "adamw",
            "lr0": 0.001,
            "weight_decay": 0.05,
            "cos_lr": True,
            "ema": 0.998,
            "test.score_thr": 0.02,
        },
        random_weights=True,
    ),
    # SFDNet's settings for DetectoRS with RFLA, AI-TOD 29.0 with its own neck.
    "long": Recipe(
        "two-stage models, three times as long, as published with SFDNet; not measured here",
        {
            "epochs": 36,
            "lr_steps": (28, 33),
            "clip_grad": 10.0,
            "rpn.nms_iou": 0.8,
            "test.score_thr": 0.001,
        },
    ),
    # Under 6 minutes on two cores. What counts is how many objects are seen in that time: a mosaic
    # holds 1.6 times as many, and small steps are many.
    "demo": Recipe(
        "data=demo on a CPU in a few minutes: a small network from random weights",
        {
            "backbone.name": "resnet18",
            "neck.width": 64,
            "head.width": 64,
            "head.depth": 2,
            "head.norm": "gn",
            "imgsz": 256,
            "batch": 2,
            "epochs": 4,
            "aug.mosaic": 1.0,
            "aug.zoom": 0.0,
            "aug.hsv_h": 0.0,
            "aug.hsv_s": 0.0,
            "aug.hsv_v": 0.0,
            "optimizer": "adamw",
            "lr0": 0.001,
            "weight_decay": 0.05,
            "cos_lr": True,
            "ema": 0.98,
            "pretrained": False,
        },
        random_weights=True,
    ),
}
