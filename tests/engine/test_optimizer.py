"""Parameter groups against mmcv's own for the authors' models; optimisers by hand."""

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from rfla.cfg import model_config
from rfla.engine.optimizer import build_optimizer, parameter_groups
from rfla.models.zoo import DETECTORS


class Official(nn.Module):
    """Modules with the official names and kinds, one scalar each: the rule looks at no more."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        for key, kind in keys.items():
            parent: nn.Module = self
            *path, leaf = key.split(".")
            for depth, name in enumerate(path):
                if not hasattr(parent, name):
                    last = depth == len(path) - 1
                    parent.add_module(
                        name, nn.GroupNorm(1, 1) if last and kind == "norm" else nn.Module()
                    )
                parent = getattr(parent, name)
            setattr(parent, leaf, nn.Parameter(torch.zeros(1)))


def kind_of(key: str) -> str:
    return "norm" if re.search(r"(^|\.)(bn\d|gn|bn|downsample\.1)\.", key) else "other"


@pytest.mark.parametrize(
    "model", ["fcos_p3_rfla", "fcos_p2_rfla", "retinanet_rfla", "autoassign_rfla"]
)
def test_groups_of_the_authors_models(model: str, parity: Callable) -> None:
    manifest, _ = parity("optim")
    case = next(case for case in manifest["cases"] if case["model"] == model)
    listed = {
        key: tuple(float(n) for n in setting.strip("()").split(","))[:2]
        for setting, entry in case["param_settings"].items()
        if isinstance(entry["keys"], list)
        for key in entry["keys"]
    }
    others = [
        "backbone.conv1.weight",
        "backbone.layer2.0.bn1.bias",
        "neck.lateral_convs.0.conv.weight",
    ]
    net = Official({key: kind_of(key) for key in [*listed, *others]})
    rules = case["optimizer"].get("paramwise_cfg", {})
    groups = parameter_groups(
        net,
        lr=0.005,
        weight_decay=1e-4,
        bias_lr_mult=rules.get("bias_lr_mult", 1.0),
        bias_decay=rules.get("bias_decay_mult", 1.0),
        norm_decay=rules.get("norm_decay_mult", 1.0),
    )
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    ours = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    for key, expected in listed.items():
        assert ours[key] == pytest.approx(expected), key
    usual = (0.005, 0.0 if model == "autoassign_rfla" else 1e-4)
    assert ours["backbone.conv1.weight"] == pytest.approx((0.005, 1e-4))
    # mmcv counts the biases of norm layers as theirs, not as biases. (The recorded backbone's norms
    # do not learn.)
    assert ours["backbone.layer2.0.bn1.bias"] == pytest.approx(usual)


def test_frozen_parameters_are_left_out_and_the_backbone_has_its_own_rate(
    micro: ModuleType,
) -> None:
    net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "later": micro.MicroBackbone(learns=True)})
    net["backbone"].weight.requires_grad_(False)
    groups = parameter_groups(
        net, lr=1.0, weight_decay=0.1, bias_lr_mult=2.0, bias_decay=0.5, backbone_lr_mult=0.1
    )
    assert [(len(g["params"]), g["base_lr"], g["weight_decay"]) for g in groups] == [
        (1, 2.0, 0.05),  # what is a backbone tells its class, not its name
        (4, pytest.approx(0.1), 0.1),  # conv1 and three layers
        (2, pytest.approx(0.1), 0.1),  # bn1
        (3, pytest.approx(0.2), 0.05),  # the biases of three layers
    ]


def test_every_backbone_of_detectors_has_its_rate() -> None:
    config = model_config("detectors", settings={"backbone.frozen_stages": -1})
    with torch.device("meta"):
        net = DETECTORS["detectors"].from_config(config, 2)
    groups = parameter_groups(net, lr=1.0, weight_decay=0.0, backbone_lr_mult=0.1)
    slow = {id(p) for group in groups if group["lr"] < 1 for p in group["params"]}
    inside = [name for name, p in net.named_parameters() if id(p) in slow]
    assert {name.split(".")[0] for name in inside} == {"backbone", "neck"}
    assert all("rfp_modules" in name for name in inside if name.startswith("neck"))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimiser_by_name(name: str) -> None:
    net = nn.Linear(2, 2)
    # type: ignore[arg-type]
    optimizer = build_optimizer(name, parameter_groups(net, 0.1, 0.0), 0.1, 0.8, fused=False)
    assert type(optimizer).__name__.lower() == name
    group = optimizer.param_groups[0]
    assert group.get("momentum", group.get("betas", (None,))[0]) == 0.8


def test_a_skipped_first_step_leaves_no_memory_unset() -> None:
    """As the scaler asks of a fused step with a bad gradient: nothing moves, then w - lr g.

    Without memory made beforehand the second step moved weights of 1 by tens on a CPU.
    """
    weight = nn.Parameter(torch.ones(64))
    groups = [{"params": [weight], "lr": 0.5, "base_lr": 0.5, "weight_decay": 0.0}]
    optimizer: Any = build_optimizer("sgd", groups, 0.5, 0.9, fused=True)
    optimizer.grad_scale = torch.tensor(1.0)
    for found_inf, gradient, expected in ((1.0, float("inf"), 1.0), (0.0, 1.0, 0.5)):
        optimizer.found_inf = torch.tensor(found_inf)
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        assert torch.equal(weight.detach(), torch.full((64,), expected))
