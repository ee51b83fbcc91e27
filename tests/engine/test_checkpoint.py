"""The training state: what goes in comes out; a foreign or damaged file is refused in one line."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rfla.engine import checkpoint
from rfla.engine.checkpoint import load_latest_state, load_state, save_state
from rfla.engine.run_dir import STATE_NAME
from rfla.errors import WeightsError
from rfla.files import write_atomically


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / STATE_NAME
    save_state(path, {"model/a": torch.arange(6.0).reshape(2, 3).t()}, {"position": {"epoch": 1}})
    return path


def test_round_trip(state: Path) -> None:
    tensors, document = load_state(state)
    assert torch.equal(tensors["model/a"], torch.arange(6.0).reshape(2, 3).t())
    assert document == {"position": {"epoch": 1}}


@pytest.mark.parametrize(
    "keep", [0, 7, 60, -1]
)  # bytes: nothing, half a length, half a header, all but the last
def test_a_truncated_state_gives_way_to_the_one_before(state: Path, keep: int) -> None:
    save_state(state, {"model/a": torch.ones(1)}, {"position": {"epoch": 2}})
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="damaged training state"):
        load_state(state)
    _, document, warning = load_latest_state(state)
    assert document["position"]["epoch"] == 1
    assert warning is not None and warning.endswith("going on from the state before it")
    assert "\n" not in warning
    # The damaged file is out of the way: the next save must not link it over the good one.
    save_state(state, {"model/a": torch.ones(1)}, {"position": {"epoch": 3}})
    assert load_state(state)[1]["position"]["epoch"] == 3


def test_damaged_without_one_before(state: Path) -> None:
    state.write_bytes(b"junk" * 100)
    with pytest.raises(WeightsError, match="damaged"):
        load_latest_state(state)


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(WeightsError, match="damaged"):
        load_state(path)
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match="damaged"):
        load_state(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="not a training state of rfla"):
        load_state(path)
    with pytest.raises(WeightsError, match=r"the run has no training state to go on from$"):
        load_state(tmp_path / "absent")
    torch.save({"a": 1}, path)  # a pickle is not opened
    with pytest.raises(WeightsError, match="damaged"):
        load_state(path)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_optimiser_goes_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        keys = {"momentum": 0.9} if name == "SGD" else {}
        return net, getattr(torch.optim, name)(net.parameters(), lr=0.1, **keys)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    net, optimizer = make()
    step(net, optimizer)
    tensors = {
        key: tensor.clone() for key, tensor in checkpoint.optimizer_tensors(optimizer).items()
    }
    weights = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    step(net, optimizer)
    other, its = make()
    other.load_state_dict(weights)
    checkpoint.restore_optimizer(its, tensors, tmp_path)
    step(other, its)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_optimiser_state_takes_the_layout_of_its_parameter(name: str, tmp_path: Path) -> None:
    """A fused step on a GPU takes no other."""
    net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    keys = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1, **keys)
    net(torch.ones(1, 2, 4, 4)).sum().backward()
    optimizer.step()
    tensors = {  # a file holds all in one layout
        key: tensor.contiguous() for key, tensor in checkpoint.optimizer_tensors(optimizer).items()
    }
    checkpoint.restore_optimizer(optimizer, tensors, tmp_path)
    kept = {key: value for key, value in optimizer.state[net.weight].items() if value.dim()}
    assert kept and all(value.stride() == net.weight.stride() for value in kept.values())


def test_state_of_another_model(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    for key, tensor in {
        "0/x": torch.ones(5, 5),
        "9/x": torch.ones(1),
        "x/y": torch.ones(1),
    }.items():
        with pytest.raises(WeightsError, match="another optimiser or model"):
            checkpoint.restore_optimizer(optimizer, {key: tensor}, tmp_path)
    with pytest.raises(WeightsError, match="made by another model"):
        checkpoint.restore_module(nn.Linear(3, 2), {"weight": torch.ones(9)}, tmp_path)
    with pytest.raises(WeightsError, match="incomplete or foreign"), checkpoint.complete(tmp_path):
        raise KeyError("position")


def test_every_random_generator_comes_back() -> None:
    random.gauss(0, 1), np.random.normal()  # leaves half a pair behind in both
    tensors, document = (
        checkpoint.random_tensors(),
        json.loads(json.dumps(checkpoint.random_document())),
    )

    def draw() -> list[float]:
        return [
            random.random(),
            random.gauss(0, 1),
            float(np.random.normal()),
            float(torch.rand(1)),
        ]

    expected = draw()
    checkpoint.restore_random(tensors, document)
    assert draw() == expected


def test_a_failed_write_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
