"""Weights files: safetensors with JSON metadata that is enough to rebuild the model.

No pickle is written or read.

A file from a stranger is read with suspicion: the header's length is checked before anything is
allocated, the metadata must be ours, and a model it asks for must be of a sane size
(`rfla.models.zoo`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rfla.cfg import saved_model_config, weights_header
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import MAX_NAME, WeightsError, one_line, printable
from rfla.files import write_atomically
from rfla.models.detector import Detector
from rfla.models.zoo import MAX_CLASSES, build_from_config, sketch
from rfla.ops.device import plain_defaults
from rfla.version import __version__

FORMAT = 1
LARGEST_NUMBER = 1e6  # px or m; larger numbers are not sizes


def own_metadata(config: ModelConfig, names: Sequence[str], imgsz: int) -> dict[str, Any]:
    """Return what every weights file says of itself; enough to rebuild the model.

    Args:
        config: The model's settings.
        names: Class names in the order of the outputs.
        imgsz: Long side in px that it was trained at.
    """
    return {
        "format": FORMAT,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": config.model_dump(mode="json"),
        "names": list(names),
        "imgsz": imgsz,
    }


def save_weights(
    path: str | Path, state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write a weights file beside its place, then rename it: a kill leaves the previous file.

    Args:
        path: a `.safetensors` file.
        state_dict: tensors by name, on any device.
        metadata: what JSON can hold; `format`, `version`, `model`, `names`, `imgsz`, `objects`,
            `gsd`, `metrics`, `date`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: value.detach().to("cpu").contiguous().clone() for key, value in state_dict.items()
    }
    text = json.dumps(dict(metadata), default=_plain)
    entries = {weights_header.KEY: text, weights_header.DIGEST: digest(tensors, text)}
    write_atomically(path, save(tensors, entries))


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of tensors (on the CPU) and of the text beside them, in hexadecimal digits.

    Names, types, shapes and values count, in the order of the names.
    """
    total = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "replace"))
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weights file: (tensors on the CPU, metadata).

    Raises:
        WeightsError: missing, damaged, hostile, or not written by this package.
    """
    metadata = read_metadata(path)
    header = weights_header.read_header(path)
    try:
        tensors = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path}: damaged weights file: {one_line(error)}") from None
    if header.digest is not None and header.digest != digest(tensors, header.text):
        raise WeightsError(
            f"{path}: damaged weights file: it does not hold what was written (its sha256 differs);"
            " copy it again"
        )
    return tensors, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a weights file without its tensors.

    Raises:
        WeightsError: as `load_weights`.
    """
    metadata = weights_header.read_metadata(path)
    if metadata.get("format") != FORMAT:
        found = str(metadata.get("format"))[:20]
        raise WeightsError(f"{path}: weights of format {found}; this version reads {FORMAT}")
    names = metadata.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"{path}: metadata without class names")
    if len(names) > MAX_CLASSES:
        raise WeightsError(f"{path}: {len(names)} class names; at most {MAX_CLASSES}")
    if max(map(len, names)) > MAX_NAME:
        raise WeightsError(f"{path}: a class name of more than {MAX_NAME} letters")
    return metadata | {"names": [printable(name, keep="") for name in names]}


def number_in(metadata: Mapping[str, Any], *keys: str) -> float | None:
    """Return a size of the metadata, a positive number; None where there is none.

    Args:
        metadata: Of a weights file; nothing in it is trusted.
        keys: Its place: `"objects", "px_max"`.
    """
    value: Any = metadata
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= LARGEST_NUMBER else None


def object_sizes_in(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return how large the objects were that weights learnt, px of the input; None in older files.

    Returns:
        The long side that 99 % of them stay below, and the largest one.
    """
    px_99, px_max = (number_in(metadata, "objects", key) for key in ("px_99", "px_max"))
    if px_99 is None or px_max is None:
        return None
    return px_99, max(px_99, px_max)  # of a stranger's file the largest may be less


@plain_defaults()
def build_from_metadata(metadata: Mapping[str, Any]) -> Detector:
    """Rebuild the model that a weights file describes, with random weights.

    Raises:
        WeightsError: there is no model in it.
        ConfigError: the model in it is wrong or absurdly large.
    """
    return build_from_config(config_in(metadata), len(metadata["names"]))


def config_in(metadata: Mapping[str, Any]) -> ModelConfig:
    """Return the sections of the model that weights were written with.

    Raises:
        WeightsError: There are none.
        ConfigError: As `saved_model_config`.
    """
    model = metadata.get("model")
    if not isinstance(model, Mapping):
        raise WeightsError("the weights file does not say which model it holds")
    return saved_model_config(model, where="model in the weights file")


def load_model(path: str | Path) -> tuple[Detector, dict[str, Any]]:
    """Rebuild a model from its weights file, weights and all.

    Raises:
        WeightsError: as `load_weights`, or the tensors do not fit the model.
    """
    state, metadata = load_weights(path)
    return rebuild(config_in(metadata), len(metadata["names"]), state, str(path)), metadata


@plain_defaults()
def rebuild(
    config: ModelConfig, num_classes: int, state: Mapping[str, Tensor], where: str
) -> Detector:
    """Build a model and load its weights.

    Shapes are compared before any memory is taken: a small file may describe a large network.

    Args:
        config: of the model.
        num_classes: without background.
        state: tensors by name.
        where: names the file in messages.

    Raises:
        WeightsError: the tensors do not fit in every key and shape, or are not finite.
        ConfigError: the model is wrong or absurdly large.
    """
    problems = misfits(sketch(config, num_classes), state)
    if problems:
        raise WeightsError(f"{where}: does not fit the model: {problems}")
    net = build_from_config(config, num_classes)
    load_exactly(net, state, where)
    return net


def load_exactly(net: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict that must fit in every key and shape.

    Raises:
        WeightsError: names what is missing, unexpected, misshaped, of another kind, or not finite.
    """
    problems = misfits(net, state)
    if problems:
        raise WeightsError(f"{where}: does not fit the model: {problems}")
    net.load_state_dict(dict(state))
    check_finite(net, where)


def check_finite(net: torch.nn.Module, where: str) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        WeightsError: names the tensors that hold NaN or infinity.
    """
    broken = [key for key, value in net.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(f"{where}: numbers that are not finite in {_listed(broken)}")


def misfits(net: torch.nn.Module, state: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from fitting: missing, unexpected, misshaped, mistyped keys.

    Empty if it fits.
    """
    own = net.state_dict()
    shared = own.keys() & state.keys()
    groups = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "misshaped": [
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in sorted(shared)
            if state[key].shape != own[key].shape
        ],
        "mistyped": [
            f"{key} {state[key].dtype} for {own[key].dtype}"
            for key in sorted(shared)
            if state[key].is_floating_point() != own[key].is_floating_point()
            or state[key].is_complex()
        ],
    }
    return "; ".join(
        f"{len(keys)} {word} ({_listed(keys)})" for word, keys in groups.items() if keys
    )


def _listed(keys: Sequence[str], shown: int = 4) -> str:
    return ", ".join(printable(key[:120], keep="") for key in keys[:shown]) + (
        ", ..." if len(keys) > shown else ""
    )


def _plain(value: Any) -> Any:
    """What json cannot write by itself: scalars of numpy and torch, paths."""
    if hasattr(value, "item"):
        return value.item()
    return str(value)
