"""Bad numbers, dying processes, changing directories: a run ends well or says why in a line."""

import csv
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rfla.cfg import Config, load_config
from rfla.engine import build, memory
from rfla.engine.build import compile_parts
from rfla.engine.distributed import join_world
from rfla.engine.hooks import Hooks, Run
from rfla.engine.loaders import lost_worker
from rfla.engine.meter import BatchRecord, RunningStatistics
from rfla.engine.optimizer import EMA
from rfla.engine.state import RunState
from rfla.engine.trainer import Trainer, train
from rfla.errors import ConfigError, ExistingRunError, RflaError, WeightsError

Configure = Callable[..., Config]


class Act(Hooks):
    """Does something at one moment: `Act(batch_end=function)`."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            setattr(self, name, function)


def test_statistics_of_a_bad_batch_are_not_kept(config: Configure) -> None:
    """A batch norm that once saw NaN would keep it, and no later validation would see anything."""

    def poison(run: Run) -> None:
        count = iter(range(1000))
        conv: Any = run.net.backbone.conv1  # type: ignore[union-attr]
        conv.register_forward_hook(
            lambda _, __, out: out * float("nan") if next(count) == 1 else out
        )

    result = train(config(epochs=1, val=False), Act(train_start=poison))
    last = load_file(result.last)
    assert "backbone.bn1.running_mean" in last
    assert all(
        torch.isfinite(tensor).all() for tensor in last.values() if tensor.is_floating_point()
    )
    with (result.run_dir / "results.csv").open() as file:
        assert [row["skipped"] for row in csv.DictReader(file)] == ["1"]


def test_running_statistics_by_hand() -> None:
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.BatchNorm1d(1).eval())
    statistics = RunningStatistics(net)
    assert len(statistics.tensors) == 2  # mean and variance of the one that learns
    statistics.keep()
    mean = statistics.tensors[0]
    mean.fill_(5.0)
    statistics.take_back_unless(torch.tensor(True))
    assert float(mean) == 5.0
    statistics.take_back_unless(torch.tensor(False))
    assert float(mean) == 0.0


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


def test_speed_is_that_of_training_alone(
    config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: time.sleep(3) or validate(self))
    result = train(config(epochs=1))
    with (result.run_dir / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 6 / float(row["images_per_s"]) < float(row["time"]) - 2.9


def test_a_killed_loading_process_is_told_in_one_line(config: Configure) -> None:
    def kill(run: Run, losses: dict[str, Tensor]) -> None:
        if run.epoch == 1:
            workers = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            os.kill(int(workers[-1]), signal.SIGKILL)

    # torch names the signal, unless the pipe to the process breaks before it looks
    message = (
        r"^a process that loads images has died( \(Killed\))?; memory may be short: .*; "
        r"go on: rfla train resume="
    )
    begin = time.monotonic()
    with pytest.raises(RflaError, match=message):
        train(config(epochs=500, workers=1, val=False), Act(batch_end=kill))
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError(
                "DataLoader worker (pid 3) is killed by signal: Bus error. It is possible"
            ),
            "/dev/shm",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 3, 4) exited unexpectedly"),
            "has died; memory may be short",
        ),
        (RuntimeError("something else"), ""),
        (ValueError("DataLoader worker"), ""),
    ],
)
def test_how_a_loading_process_died(error: Exception, words: str) -> None:
    text = lost_worker(error)
    assert words in text and bool(text) == bool(words)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_words_of_a_full_memory(text: str, is_memory: bool) -> None:
    assert memory.ran_out(RuntimeError(text)) is is_memory


def test_a_run_directory_that_vanishes(config: Configure) -> None:
    def remove(run: Run, epoch: int) -> None:
        if epoch == 1:
            shutil.rmtree(run.run_dir)

    with pytest.raises(
        ExistingRunError, match=r"^cannot write .*: No such file or directory; .*start again$"
    ):
        train(config(epochs=3, val=False), Act(epoch_start=remove))


def test_a_new_run_in_an_old_directory_does_not_resume_the_old_one(config: Configure) -> None:
    """With exist_ok=true: its state and best weights must not pass for those of the new run."""
    first = train(config(epochs=1, exist_ok=True))
    (first.run_dir / "weights" / ".last.state.safetensors.killed").write_bytes(b"half")

    def interrupt(run: Run, losses: dict[str, Tensor]) -> None:
        run.stop()

    def look(run: Run) -> None:
        names = {path.name for path in (run.run_dir / "weights").iterdir()}
        assert names == {"best.safetensors", "last.safetensors"}

    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=1, exist_ok=True, seed=5), Act(train_start=look, batch_end=interrupt))
    best, last = (
        load_file(first.run_dir / "weights" / f"{name}.safetensors") for name in ("best", "last")
    )
    assert all(torch.equal(best[key], tensor) for key, tensor in last.items())
    resumed = train(load_config({"resume": str(first.run_dir)}, mode="train"))
    whole = train(config(epochs=1, seed=5, name="whole"))
    again, once = load_file(resumed.last), load_file(whole.last)
    assert all(torch.equal(again[key], tensor) for key, tensor in once.items())


def test_data_may_move_but_not_change(
    config: Configure, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(config(epochs=1, val=False)).run_dir

    def resume(data: Path) -> None:
        train(load_config({"resume": str(run), "epochs": 2, "data": str(data)}, mode="train"))

    with pytest.raises(
        WeightsError,
        match=r"the run had 6 images, the data now has 7: .*start a new one from model=.*last",
    ):
        resume(make_set(tmp_path / "larger", images=7))
    with pytest.raises(
        WeightsError,
        match=r"the run had ship, car classes, the data now has car, ship: that would be",
    ):
        resume(make_set(tmp_path / "renamed", names=("car", "ship")))
    resume(make_set(tmp_path / "moved"))


def test_the_fullest_gpu_decides(config: Configure) -> None:
    cfg = config(batch=-1)
    settled, notes = memory.settle_batch(cfg, [9, 7])
    assert settled.batch == 14
    assert notes == ["batch=-1: training with batch=14, which fits into the memory of 2 GPUs"]
    assert memory.settle_batch(config(), [0, 0]) == (config(), [])


def test_no_larger_batch_than_there_are_images(
    config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_fits", lambda *_: True)
    gpu, net = torch.device("cuda", 0), nn.Linear(1, 1)
    assert memory.largest_that_fits(config(batch=-1), net, gpu, images=100) == 100
    assert memory.largest_that_fits(config(batch=-1), net, gpu, images=10_000) == memory.LARGEST
    assert memory.largest_that_fits(config(batch=4), net, gpu, images=10) == 0


def test_world_size_alone_is_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ConfigError,
        match=r"WORLD_SIZE=2 is set, but not RANK, MASTER_ADDR, MASTER_PORT: start with",
    ):
        join_world(torch.device("cpu"))


def test_an_average_of_a_compiled_network_runs_its_own_weights() -> None:
    """A compiled call belongs to the network that it was compiled for.

    A copy must not take it along.
    """
    net = nn.Module()
    net.backbone = nn.Linear(1, 1, bias=False)
    compile_parts(net)
    average = EMA(net, 0.9)
    nn.init.constant_(net.backbone.weight, 3.0)
    nn.init.constant_(average.net.backbone.weight, 2.0)  # type: ignore[union-attr, arg-type]
    assert float(average.net.backbone(torch.ones(1, 1))) == 2.0  # type: ignore[operator]


def test_compilation_comes_after_the_check_of_the_precision(
    config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled before, the parts would see two sizes of images and be compiled for any size."""
    order: list[str] = []
    monkeypatch.setattr(build, "autocast_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(build, "precision_holds", lambda *_: order.append("check") or True)
    monkeypatch.setattr("rfla.engine.build.compile_parts", lambda _: order.append("compile"))
    train(config(epochs=1, val=False, compile=True))
    assert order == ["check", "compile"]
