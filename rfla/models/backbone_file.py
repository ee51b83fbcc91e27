"""A backbone's weights from a local file: safetensors, or a state dict of torch without code in it.

Taken are files of torchvision, of timm, of a detector of other people, and weights files of rfla.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rfla.cfg import weights_header
from rfla.cfg.backbones import pixel_statistics
from rfla.cfg.weights_header import is_weights
from rfla.errors import WeightsError, counted, one_line, printable
from rfla.files import open_regular
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.match import Match, match
from rfla.models.backbones.pretrained import Pixels
from rfla.models.checkpoint_file import read_checkpoint
from rfla.models.detector import Detector
from rfla.models.weights import config_in, load_weights

LEAST_SHARE = 0.9  # of the tensors of a backbone; below it the file holds another network
WRAPPED_IN = ("state_dict", "model", "model_ema")  # under which trainers keep the tensors


def load_backbone_file(net: Detector, path: str | Path) -> str:
    """Put the weights of a file into the backbone of a new detector.

    Weights of torchvision and timm are adapted to the detector's own input by their deviation and
    order of channels, as ImageNet weights are.

    Args:
        net: the detector.
        path: a `.safetensors` file, or one of `torch.save`.

    Returns:
        A line that says what was loaded, and what did not fit.

    Raises:
        WeightsError: no such file, damaged, hostile, or of another network.
    """
    state, trained_on = _read(Path(path), net.config.backbone.name)
    normalize = net.config.normalize
    lines = []
    for backbone in net.backbones:
        found = match(backbone, state, backbone.added)
        _refuse_another_network(backbone, found, path)
        backbone.start_from(found.fitting, trained_on, Pixels(normalize.std, normalize.channels))
        lines.append(_line(backbone, found, path))
    return lines[0]


def _read(path: Path, name: str) -> tuple[dict[str, Tensor], Pixels]:
    """Read the tensors of a file, and the pixels that they were trained on."""
    if not is_weights(str(path)):
        return _finite(_tensors_in(read_checkpoint(path), path), path), _usual(name)
    open_regular(path, WeightsError).close()
    try:
        with safe_open(path, "pt") as file:
            is_ours = weights_header.KEY in (file.metadata() or {})
            state = {} if is_ours else {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise WeightsError(f"{path}: not a readable safetensors file: {reason}") from None
    if not is_ours:
        return _finite(state, path), _usual(name)
    state, metadata = load_weights(path)
    normalize = config_in(metadata).normalize
    return _finite(state, path), Pixels(normalize.std, normalize.channels)


def _usual(name: str) -> Pixels:
    """What the library's own weights of a network saw."""
    return Pixels(pixel_statistics(name)[1])


def _tensors_in(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPED_IN:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    tensors = (
        {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
        if isinstance(checkpoint, Mapping)
        else {}
    )
    if not tensors:
        raise WeightsError(f"{path}: holds no state dict: no tensors by name")
    return tensors


def _finite(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path}: numbers that are not finite in {printable(key[:120])}")
    return state


def _refuse_another_network(backbone: Backbone, found: Match, path: str | Path) -> None:
    fitting = len(found.fitting)
    total = fitting + len(found.missing) + len(found.misshaped)
    if fitting < LEAST_SHARE * total:
        raise WeightsError(
            f"{path}: weights of another network than {backbone.name}: {fitting} of its "
            f"{total} tensors fit{_rest(found)}"
        )


def _line(backbone: Backbone, found: Match, path: str | Path) -> str:
    return f"{path}: {counted(len(found.fitting), 'tensor')} of {backbone.name}{_rest(found)}"


def _rest(found: Match) -> str:
    """What of a file did not fit, in words."""
    parts = {
        "missing": found.missing,
        "of another shape": found.misshaped,
        "not used": found.unused,
    }
    return "".join(
        f"; {len(keys)} {word} ({', '.join(printable(key[:60], keep='') for key in keys[:3])}"
        f"{', ...' if len(keys) > 3 else ''})"
        for word, keys in parts.items()
        if keys
    )
