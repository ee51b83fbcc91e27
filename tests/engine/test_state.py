"""The state of a run: which epoch is best, and files that are not what they should be."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rfla.cfg import Config, load_config
from rfla.engine.checkpoint import load_state, save_state
from rfla.engine.ema import EMA
from rfla.engine.meter import BatchRecord
from rfla.engine.state import Position, RunState
from rfla.engine.trainer import train
from rfla.errors import WeightsError

CPU = torch.device("cpu")
DATA = {"images": 6, "classes": ["ship"]}


def make_state() -> RunState:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = RunState(net, optimizer, EMA(net, 0.9), scaler)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state.meter.add_batch(torch.tensor([0]), {"loss_cls": torch.tensor(1.0)}, {})
    return state


def test_of_equal_figures_the_latest_epoch_is_best() -> None:
    """AP 0.1, 0.3, 0.3, 0.2: epoch 3 is best, and the last to improve was epoch 2."""
    position, best = Position(), []
    for ap in (0.1, 0.3, 0.3, 0.2):
        position.epoch += 1
        best.append(position.offer(ap))
    assert best == [True, True, True, False]
    assert (position.best_epoch, position.improved_epoch, position.best_ap) == (3, 2, 0.3)


def test_epochs_that_are_not_validated() -> None:
    """Each is the best, until one with a figure is: 0.3 is kept over the unjudged one after it."""
    position, best = Position(), []
    for ap in (None, None, 0.3, None, 0.2):
        position.epoch += 1
        best.append(position.offer(ap))
    assert best == [True, True, True, False, False]
    assert (position.best_epoch, position.best_ap) == (3, 0.3)


def test_a_split_without_boxes_has_no_best() -> None:
    position = Position(epoch=1)
    assert not position.offer(-1.0)
    assert position.best_epoch == position.improved_epoch == 0


def test_an_ap_of_zero_is_a_figure_but_no_improvement_for_ever() -> None:
    position = Position()
    for _ in range(3):
        position.epoch += 1
        assert position.offer(0.0)
    assert (position.best_epoch, position.improved_epoch) == (3, 1)


def test_everything_comes_back(tmp_path: Path) -> None:
    state, other = make_state(), make_state()
    state.position = Position(epoch=3, batch=2, iteration=17, best_ap=0.25, best_epoch=2)
    state.save(tmp_path / "x", state.meter.sums, DATA)
    assert other.restore(tmp_path / "x", DATA, CPU) is None
    assert (other.position.epoch, other.position.iteration, other.position.best_ap) == (3, 17, 0.25)
    assert torch.equal(other.net.weight, state.net.weight)  # type: ignore[arg-type]
    assert other.meter.sums.keys() == state.meter.sums.keys()


@pytest.mark.parametrize(("batch", "steps"), [(4, 4), (3, 3), (0, 0)])
def test_a_place_in_an_epoch_is_found_again_by_smaller_batches(
    tmp_path: Path, batch: int, steps: int
) -> None:
    """Memory ran out after the state was written: a step has 2 batches from then on."""
    state, other = make_state(), make_state()
    state.position = Position(batch=batch)
    state.save(tmp_path / "x", state.meter.sums, DATA | {"accumulate": 1})
    other.restore(tmp_path / "x", DATA, CPU, accumulate=2)
    assert other.position.batch == 2 * steps


def test_a_short_last_step_of_an_epoch_counts_whole(tmp_path: Path) -> None:
    """5 batches by steps of 2 are 3 steps."""
    state, other = make_state(), make_state()
    state.position = Position(batch=5)
    state.save(tmp_path / "x", state.meter.sums, DATA | {"accumulate": 2})
    other.restore(tmp_path / "x", DATA, CPU, accumulate=4)
    assert other.position.batch == 12


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["position"].update(epoch="3"), "'3' where a number belongs"),
        (lambda d: d["position"].update(epoch=2.5), "'2.5' where a number belongs"),
        (lambda d: d["position"].update(best_ap=float("nan")), "'nan' where a number"),
        (lambda d: d["position"].pop("batch"), "KeyError"),
        (lambda d: d.update(position=[1, 2]), "TypeError"),
        (lambda d: d["meter"].update(batches=None), "'None' where a number belongs"),
        (lambda d: d.update(ema_updates=[]), "'[]' where a number belongs"),
        (lambda d: d.update(sums=["loss_other"]), "KeyError"),
        (lambda d: d.update(random={"python": 3, "numpy": 4}), "incomplete or foreign"),
        (lambda d: d.update(random={"python": [3, ["x"], None], "numpy": [1, 0, 0.0]}), "foreign"),
        (lambda d: d.update(data=5), "incomplete or foreign"),
    ],
)
def test_values_of_a_wrong_type_are_refused_in_a_line(
    tmp_path: Path, change: Change, words: str
) -> None:
    path = tmp_path / "x"
    state = make_state()
    state.save(path, state.meter.sums, DATA)
    tensors, document = load_state(path)
    change(document)
    save_state(path, tensors, document)
    path.with_name("x.previous").unlink()
    with pytest.raises(WeightsError) as caught:
        make_state().restore(path, DATA, CPU)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model/weight", "ema/weight", "optimizer/0/momentum_buffer"])
def test_tensors_of_another_type_are_refused(tmp_path: Path, name: str) -> None:
    """A float weight from integers would be rounded without a word."""
    path = tmp_path / "x"
    state = make_state()
    state.save(path, state.meter.sums, DATA)
    tensors, document = load_state(path)
    tensors[name] = tensors[name].to(torch.int64)
    save_state(path, tensors, document)
    with pytest.raises(WeightsError, match="made by another"):
        make_state().restore(path, DATA, CPU)


@pytest.mark.parametrize("part", ["model/weight", "random/torch", "ema/bias", "document"])
def test_a_changed_byte_is_noticed(tmp_path: Path, part: str) -> None:
    """A state whose form is whole but whose numbers are not: refused, and what to do is said."""
    path = tmp_path / "last.state.safetensors"
    state = make_state()
    state.save(path, state.meter.sums, DATA)
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if part == "document":
        place = bytes(data).index(b'\\"iteration\\": 0') + len('\\"iteration\\": ')
        data[place] = ord("7")
    else:
        data[8 + length + header[part]["data_offsets"][0]] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"last.state.safetensors: damaged .*digest"):
        make_state().restore(path, DATA, CPU)


def test_a_step_that_was_dropped_can_be_taken_again() -> None:
    """Memory ran out after the gradients were unscaled: the scaler must take the next ones."""
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = RunState(net, optimizer, None, torch.amp.GradScaler("cpu", init_scale=8.0))
    for _ in range(2):
        state.scaler.scale(net(torch.ones(1, 1)).sum()).backward()
        state.scaler.unscale_(optimizer)
        state.drop_step()
        assert state.scaler.get_scale() == 8.0 and net.weight.grad is None


@pytest.mark.parametrize(("scale", "skipped"), [(2.0**15, 0), (1.0, 1)])
def test_the_search_of_float16_for_its_scale_is_no_alarm(scale: float, skipped: int) -> None:
    net = nn.Linear(1, 1)
    scaler: Any = SimpleNamespace(get_scale=lambda: scale)
    state = RunState(net, torch.optim.SGD(net.parameters(), lr=0.1), None, scaler)
    overflow = {"loss": torch.tensor(1.0), "gradient": torch.tensor(float("inf"))}
    state.meter.recent.append(BatchRecord(torch.tensor([0]), overflow))
    bad = state.take_bad_batches()
    assert [parts for _, parts in bad] == [["gradient"]] * skipped
    assert state.meter.skipped == state.position.skipped_in_a_row == skipped
    assert state.meter.recent == []


def test_data_may_move_but_not_change(
    config: Callable[..., Config], make_set: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(config(epochs=1, val=False)).run_dir

    def resume(data: Path) -> None:
        train(load_config({"resume": str(run), "epochs": 2, "data": str(data)}, mode="train"))

    with pytest.raises(
        WeightsError,
        match=r"the run had 6 images, the data now has 7; start a new run from model=.*last",
    ):
        resume(make_set(tmp_path / "larger", images=7))
    with pytest.raises(
        WeightsError,
        match=r"the run had ship, car classes, the data now has car, ship; start a new run",
    ):
        resume(make_set(tmp_path / "renamed", names=("car", "ship")))
    resume(make_set(tmp_path / "moved"))
