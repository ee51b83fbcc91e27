"""The file of a run's state: safetensors, so that a killed run goes on as if nothing had happened.

Tensors are named `model/<key>`, `ema/<key>`, `optimizer/<parameter>/<name>`, `random/<generator>`;
everything else (the position in the run, the scaler, the best figure so far) is JSON in the file's
metadata. No pickle is written or read.
"""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rfla.errors import WeightsError, one_line
from rfla.files import write_atomically
from rfla.models.weights import digest

FORMAT = "rfla training state 2"


def save_state(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a state; the one before stays as `<name>.previous`, should this one be damaged later.

    Args:
        path: The file.
        tensors: Named tensors; they are copied to the CPU.
        document: Anything JSON can hold.
    """
    flat = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(document)
    metadata = {"format": FORMAT, "state": text, "sha256": digest(flat, text)}
    data = save(flat, metadata=metadata)
    previous = path.with_name(path.name + ".previous")
    if path.exists():
        previous.unlink(missing_ok=True)
        try:
            previous.hardlink_to(
                path
            )  # a link, not a rename: there is no moment without a good file
        except OSError:  # a file system without links
            shutil.copyfile(path, previous)
    write_atomically(path, data)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state written by `save_state`.

    Raises:
        WeightsError: The file is missing, truncated, damaged, or not a training state of this
            package.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: the run has no training state to go on from{_way_out(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = str(metadata.get("format"))[:40]
                raise WeightsError(
                    f"{path}: not a training state of rfla that this version reads (its format "
                    f"is {found!r}){_way_out(path)}"
                )
            names = file.keys()  # a method of the file, which is no dict
            tensors = {name: file.get_tensor(name) for name in names}
            if metadata["sha256"] != digest(tensors, metadata["state"]):
                raise ValueError("its digest is not that of its contents")
            return tensors, json.loads(metadata["state"])
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError, MemoryError) as error:
        reason = one_line(error)
        raise WeightsError(f"{path}: damaged training state ({reason}){_way_out(path)}") from error


def _way_out(path: Path) -> str:
    """Return what may be done without a state."""
    last = path.with_name("last.safetensors")
    return f"; model={last} starts a new run from its weights" if last.exists() else ""


def load_latest_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """Read a state, or the one before it if it is damaged.

    The damaged one is put aside as `<name>.damaged`.

    Returns:
        Tensors, document, and a warning for the user or None.
    """
    previous = path.with_name(path.name + ".previous")
    try:
        tensors, document = load_state(path)
        return tensors, document, None
    except WeightsError as error:
        if not previous.is_file():
            raise
        tensors, document = load_state(previous)
        with suppress(OSError):  # else the next save would link it over the good one
            path.replace(path.with_name(path.name + ".damaged"))
        return tensors, document, f"{error}; going on from the state before it"


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Read parts of a state in this block.

    A part that is missing or of another kind is named in one line.

    Raises:
        WeightsError: The state lacks something.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: incomplete or foreign training state ({type(error).__name__}: {error})"
        ) from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under `prefix/`."""
    return {f"{prefix}/{key}": tensor for key, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that are under `prefix/`, by their own names."""
    return {
        key[len(prefix) + 1 :]: tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix + "/")
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return momentum buffers and the like as `<parameter number>/<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Put the tensors of `optimizer_tensors` back.

    Learning rates come from the schedule, not from the file.

    Raises:
        WeightsError: The tensors are not those of this optimiser and model.
    """
    # Groups and rates are those of the settings, which a user may have changed.
    groups = optimizer.state_dict()["param_groups"]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        if not (number.isdecimal() and int(number) < len(parameters)):
            fits = False
        else:  # of the parameter's shape, or a count of steps
            parameter = parameters[int(number)]
            fits = tensor.shape in (parameter.shape, ()) and tensor.dtype == parameter.dtype
        if not fits:
            raise WeightsError(f"{path}: made by another optimiser or model (optimizer/{key})")
        if tensor.shape == parameter.shape:
            # A file holds every tensor in one layout. A fused step takes those of the parameter
            # alone, which on a GPU has its channels last.
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_tensors() -> dict[str, Tensor]:
    """Return the states of torch's generators (CPU and GPUs) and of numpy's."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    keys = np.random.get_state(legacy=False)["state"]["key"]
    return states | {"numpy": torch.from_numpy(keys.astype(np.int64))}


def random_document() -> dict[str, Any]:
    """Return what of the random states is not a tensor: Python's generator, numpy's position."""
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]],
    }


def restore_random(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Set every generator to where it was."""
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{i}"], i)
    position, has_gauss, gauss = document["numpy"]
    np.random.set_state(
        ("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss)
    )
    version, numbers, gauss = document["python"]
    random.setstate((version, tuple(numbers), gauss))


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors that must fit exactly.

    Raises:
        WeightsError: Names, shapes or types differ from the model's.
    """
    own = module.state_dict()
    for name, tensor in tensors.items():
        if name in own and own[name].dtype != tensor.dtype:  # loading would round without a word
            raise WeightsError(
                f"{path}: made by another model ({name} is {tensor.dtype}, not {own[name].dtype})"
            )
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{path}: made by another model ({str(error).splitlines()[-1].strip()})"
        ) from error
