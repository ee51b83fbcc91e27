"""How the real command ends, with real loading processes, and what is done about stopped ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from rfla.cfg import load_config
from rfla.engine.device import select_device
from rfla.engine.distributed import PeerWatch, World, join_world
from rfla.engine.hooks import Hooks, Run
from rfla.engine.trainer import train
from rfla.errors import ConfigError, DataError

Settings = Callable[..., dict[str, Any]]
SECONDS = 3.0  # in which every end must come


def start(given: dict[str, Any], verb: str = "train") -> "subprocess.Popen[str]":
    """Start the real command, with the micro network in it."""
    values = {key: v if isinstance(v, str) else json.dumps(v) for key, v in given.items()}
    tokens = [f"{key}={value}" for key, value in values.items()]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("micro.py")), verb, *tokens],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def read_until(process: "subprocess.Popen[str]", words: str) -> list[str]:
    """Read lines up to one with these words."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def seconds_to_end(process: "subprocess.Popen[str]") -> float:
    begin = time.monotonic()
    process.wait(60)
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["images", "run directory", "killed loader", "val images"])
def test_a_failed_command_ends_within_seconds_of_its_message(
    failure: str, settings: Settings, tmp_path: Path, tiny_set: Path
) -> None:
    given = settings(workers=2, epochs=1000, val=failure == "val images")
    process = start(given)
    read_until(process, " 2/1000 ")
    if failure == "run directory":
        (tmp_path / "runs" / "train").rename(tmp_path / "moved")  # at once, as a person does
    elif failure == "killed loader":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
    else:
        shutil.rmtree(tiny_set / "images")
    read_until(process, "error: ")
    assert seconds_to_end(process) < SECONDS
    assert process.returncode == 2


@pytest.mark.slow
def test_a_command_that_succeeds_ends_within_seconds_of_its_last_line(
    settings: Settings, tmp_path: Path
) -> None:
    process = start(settings(workers=2, epochs=1))
    lines = read_until(process, "rfla predict model=")
    assert seconds_to_end(process) < SECONDS
    assert process.returncode == 0, "".join(lines)
    given = {"model": str(tmp_path / "runs/train/weights/best.safetensors")}
    given |= {key: settings()[key] for key in ("data", "project", "device", "imgsz", "plots")}
    process = start(given | {"workers": 2}, "val")
    read_until(process, "results in")
    assert seconds_to_end(process) < SECONDS
    assert process.returncode == 0


@pytest.mark.slow
def test_a_closed_terminal_ends_a_run_with_its_state(settings: Settings, tmp_path: Path) -> None:
    """As a broken ssh: the terminal answers writes with an error, and SIGHUP comes."""
    ours, theirs = os.openpty()
    given = settings(workers=2, epochs=1000, val=False)
    tokens = [f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in given.items()]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("micro.py")), "train", *tokens],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    text = ""
    while " 2/1000 " not in text:
        text += os.read(ours, 4096).decode(errors="replace")
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 130
    assert (tmp_path / "runs/train/weights/last.state.safetensors").exists()


def test_a_stopped_loading_process_is_noticed(settings: Settings) -> None:
    stopped: list[int] = []

    class Stops(Hooks):
        def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
            if run.epoch == 1 and not stopped:
                children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
                stopped.extend(int(child) for child in children.split())
                for child in stopped:
                    os.kill(child, signal.SIGSTOP)

    given = settings(workers=1, epochs=500, val=False, timeout=2)
    with pytest.raises(DataError, match=r"^no batch for 2 s: .*timeout=.*; go on: rfla train res"):
        train(load_config(given, mode="train"), Stops())
    assert stopped


def test_which_processes_have_stopped() -> None:
    """Ranks 0 to 3 with a limit of 10 s; the watch is that of rank 1."""
    watch = PeerWatch(World(1, 4), "localhost", 1, timeout=10)
    watch.seen = {0: 100.0, 1: 100.0, 2: 89.9, 3: 95.0}
    assert watch.stopped(100.0) == [2]
    assert watch.stopped(99.0) == []
    # The store answers nobody: its process, the main one, has stopped.
    assert watch.stopped(111.0) == [0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "two"),
        ("WORLD_SIZE", ""),
        ("RANK", "-1"),
        ("RANK", "2"),
        ("LOCAL_RANK", "x"),
        ("MASTER_PORT", "http"),
        ("MASTER_PORT", "70000"),
        ("MASTER_PORT", "²"),
    ],
)
def test_an_environment_that_torchrun_would_not_make(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29500"}
    for key, number in (whole | {"MASTER_ADDR": "localhost", name: value}).items():
        monkeypatch.setenv(key, number)
    with pytest.raises(ConfigError, match=rf"^{name}=.* in the environment is not a whole number"):
        join_world(select_device("cpu"))
