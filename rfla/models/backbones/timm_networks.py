"""Any timm network with `features_only` as a detection backbone. Extra: rfla[timm].

timm says itself which maps a network has, of which stride and how many channels. A network that
takes images of one size alone, or that has no pyramid, is refused before anything is trained.

Shapes: B images, (H, W) px, D channels of a map.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rfla.cfg.backbone_names import TIMM
from rfla.errors import ConfigError, did_you_mean, extra_needed, installed, one_line
from rfla.models.backbones.body import Body, last_of_each_stride
from rfla.models.backbones.pretrained import Pixels, Pretrained, quick_to_give_up, reachable

PROBE = (96, 160)  # px, height and width of the empty image: no network was made for it


def timm_body(name: str) -> Body:
    """Build a network of timm with random weights.

    Args:
        name: `timm/NAME`.

    Raises:
        ConfigError: no such network, timm is not installed, no pyramid, or a fixed size of images.
    """
    plan = _plan(name)
    return Body(
        net=_build(name, out_indices=plan.indices, **plan.arguments),
        ends=plan.ends,
        channels=plan.channels,
        strides=plan.strides,
        pretrained=partial(_pretrained, name),
        channels_last=plan.channels_last,
    )


def timm_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB, of pixels from 0 to 255, that the weights want.

    Args:
        name: `timm/NAME`.

    Raises:
        ConfigError: no such network, or timm is not installed.
    """
    config = _entry(name)
    mean, std = (tuple(255 * value for value in values) for values in (config.mean, config.std))
    return mean, std


@dataclass(frozen=True)
class _Plan:
    """How a network is cut: `Body` without its modules.

    Attributes:
        indices: timm's numbers of the maps that are used.
        arguments: what the network needs to take images of any size.
    """

    indices: tuple[int, ...]
    arguments: Mapping[str, Any]
    ends: Sequence[str | None]
    channels: Sequence[int]
    strides: Sequence[int]
    channels_last: bool


@cache
def _plan(name: str) -> _Plan:
    _entry(name)
    arguments = {"strict_img_size": False}  # what a Swin takes, and a convolutional network not
    with torch.device("meta"):
        try:
            net = _build(name, **arguments)
        except TypeError:
            arguments = {}
            net = _build(name)
    info: Any = net.feature_info
    maps = info.get_dicts()
    chosen = [maps[index] for index in last_of_each_stride(name, [m["reduction"] for m in maps])]
    plan = _Plan(
        indices=tuple(each["index"] for each in chosen),
        arguments=arguments,
        ends=[_submodule(net, each["module"]) for each in chosen],
        channels=[each["num_chs"] for each in chosen],
        strides=[each["reduction"] for each in chosen],
        channels_last=str(getattr(net, "output_fmt", "")).endswith("NHWC"),
    )
    _refuse_fixed_size(name, plan)
    return plan


def _build(name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build a network that gives features.

    Raises:
        ConfigError: it gives none.
        TypeError: it does not know an argument.
    """
    try:
        net: nn.Module = _timm().create_model(
            name.removeprefix(TIMM), pretrained=pretrained, features_only=True, **arguments
        )
    except (RuntimeError, AssertionError, AttributeError) as error:
        if pretrained:
            raise
        reason = one_line(error)
        raise ConfigError(f"backbone.name={name}: gives no feature maps: {reason}") from None
    return net


def _submodule(net: nn.Module, module: str) -> str | None:
    """The name that a module of timm has inside the network that gives features."""
    modules = dict(net.named_modules())
    names = (module, module.replace(".", "_", 1), f"model.{module}", f"body.{module}")
    return next((name for name in names if name in modules), None)


def _refuse_fixed_size(name: str, plan: _Plan) -> None:
    """Raise a ConfigError for a network that was built for images of one size."""
    height, width = PROBE
    with torch.device("meta"), torch.no_grad():
        net = _build(name, out_indices=plan.indices, **plan.arguments).eval()
        try:
            shapes = [each.shape for each in net(torch.empty(1, 3, height, width))]
        except (RuntimeError, AssertionError, ValueError):
            shapes = []
    axes = (1, 2) if plan.channels_last else (2, 3)
    found = [tuple(shape[axis] for axis in axes) for shape in shapes]
    if found != [(height // stride, width // stride) for stride in plan.strides]:
        size, strides = _entry(name).input_size, ", ".join(map(str, plan.strides))
        raise ConfigError(
            f"backbone.name={name}: was made for images of {size[2]} x {size[1]} px: of one of "
            f"{width} x {height} px it makes no maps of the strides {strides}"
        )


def _pretrained(name: str) -> Pretrained:
    """The weights that timm offers, from the cache of the Hugging Face hub or the network."""
    plan = _plan(name)
    with quick_to_give_up(), _hub_that_answers():
        try:
            net = _build(name, pretrained=True, out_indices=plan.indices, **plan.arguments)
        except (OSError, RuntimeError):
            return None
    return net.state_dict(), Pixels(timm_statistics(name)[1])


@contextmanager
def _hub_that_answers() -> Iterator[None]:
    """Take what the cache holds alone where the hub is not there: its library tries for 47 s."""
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for each of its tries
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _entry(name: str) -> Any:
    """What timm says of the weights of a network.

    Raises:
        ConfigError: no such network, no such weights of it, or timm is not installed.
    """
    timm, plain = _timm(), name.removeprefix(TIMM)
    network, _, weights = plain.partition(".")
    if not timm.is_model(network):
        known = [TIMM + each for each in timm.list_models()]
        raise ConfigError(
            f"backbone.name={name}: timm has no such network{did_you_mean(name, known)}"
        )
    known = [
        each.partition(".")[2] for each in timm.list_pretrained() if each.startswith(network + ".")
    ]
    if weights and weights not in known:
        raise ConfigError(
            f"backbone.name={name}: timm has no such weights of {network}"
            f"{did_you_mean(weights, known)}; it has {', '.join(known) or 'none'}"
        )
    return timm.models.get_pretrained_cfg(plain)


def _timm() -> ModuleType:
    """Import timm.

    Raises:
        ConfigError: it is not installed.
    """
    module: ModuleType = installed("timm", extra_needed("timm"))
    return module
