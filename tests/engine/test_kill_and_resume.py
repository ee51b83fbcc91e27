"""A run that is killed at any moment and resumed ends as if nothing had happened, to the bit."""

import csv
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rfla.cfg import load_config
from rfla.engine.hooks import Hooks, Run
from rfla.engine.trainer import train

TIMES = {
    "time",
    "images_per_s",
    "data_wait",
    "memory_mb",
}  # columns that a clock or the system decides
EVERY_STEP = 1e-9  # save_minutes

RUNS: dict[str, dict[str, Any]] = {
    "sgd, one batch a step": {"optimizer": "sgd"},
    "adamw, EMA, two batches a step, cosine": {
        "optimizer": "adamw",
        "ema": 0.9,
        "accumulate": 2,
        "cos_lr": True,
    },
    "random crops and sizes, warm-up, frozen head": {
        "multi_scale": 0.5,
        "warmup_iters": 3,
        "freeze": ["head.cls"],
    },
}


class Deadly(Hooks):
    """Kills its own process at the n-th event: epoch, forward pass, step, file or rename."""

    def __init__(self, events: int) -> None:
        self.left = events

    def event(self, *unused: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def train_start(self, run: Run) -> None:
        run.net.register_forward_hook(self.event)
        if run.state.ema is not None:
            run.state.ema.net.register_forward_hook(self.event)  # in the middle of a validation
        rename = os.replace

        def replace(*paths: Any) -> None:
            self.event()  # everything is written, but under another name
            rename(*paths)
            self.event()

        os.replace = replace

    epoch_start = batch_end = val_end = checkpoint = event


def in_a_child(settings: dict[str, Any], hooks: Hooks | None, log: Path) -> int:
    """Train in a forked process; return 0, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("a") as file:
                sys.stdout = file
                torch.set_num_threads(1)
                train(load_config(settings, mode="train"), hooks)
            code = 0
        except BaseException:
            with log.open("a") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def rows(run: Path) -> list[list[tuple[str, str]]]:
    with (run / "results.csv").open(newline="") as file:
        return [
            [(key, row[key]) for key in row if key not in TIMES] for row in csv.DictReader(file)
        ]


def assert_same(broken: Path, whole: Path) -> None:
    for name in ("best", "last", "last.state"):
        ours, theirs = (
            load_file(run / "weights" / f"{name}.safetensors") for run in (broken, whole)
        )
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), f"{name}: {key}"
    assert rows(broken) == rows(whole)


@pytest.mark.parametrize("kind", RUNS)
def test_killed_at_random_moments(
    kind: str, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """About a dozen kills each; the seed of the moments is fixed, so a failure repeats."""
    common = RUNS[kind] | {"epochs": 3}
    log = tmp_path / "log.txt"
    assert in_a_child(settings(name="whole", **common), None, log) == 0, log.read_text()
    whole, broken = tmp_path / "runs" / "whole", tmp_path / "runs" / "broken"
    moments, kills = random.Random(kind), 0
    start = settings(name="broken", save_minutes=EVERY_STEP, **common)
    while True:
        state = broken / "weights" / "last.state.safetensors"
        given = {"resume": str(broken)} if state.exists() else start | {"exist_ok": True}
        code = in_a_child(given, Deadly(moments.randint(1, 24)), log)
        if code == 0:
            break
        assert code == -signal.SIGKILL, log.read_text()
        kills += 1
        assert kills < 200
    assert kills >= 5
    assert_same(broken, whole)


def test_killed_while_processes_load_the_images(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Order and augmentation of the images do not depend on how many processes load them."""
    log = tmp_path / "log.txt"
    assert in_a_child(settings(name="whole"), None, log) == 0, log.read_text()
    assert (
        in_a_child(settings(name="broken", workers=2, save_minutes=EVERY_STEP), Deadly(12), log)
        == -signal.SIGKILL
    )
    broken = tmp_path / "runs" / "broken"
    assert in_a_child({"resume": str(broken), "workers": 1}, None, log) == 0, log.read_text()
    assert_same(broken, tmp_path / "runs" / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM]
)  # of a terminal; of `timeout` or SLURM
def test_a_signal_to_all_processes(
    number: int, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """It reaches the loading processes too: a line on each output, no traceback, exit code 130."""
    tokens = [f"{key}={value}" for key, value in settings(epochs=1000, workers=2).items()]
    command = [sys.executable, str(Path(__file__).with_name("micro.py")), "train", *tokens]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if " 2/1000 " in line:
            break
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    run = tmp_path / "runs" / "train"
    assert process.returncode == 130, err
    assert err == "stopped\n"
    assert out.strip().splitlines()[-1].endswith(f"go on: rfla train resume={run}")
    assert load_file(run / "weights" / "last.safetensors")
