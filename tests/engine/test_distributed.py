"""Several processes over gloo: same losses and figures, one log, no hang when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rfla.cfg import load_config
from rfla.data.scenes import RasterScene
from rfla.engine.device import select_device
from rfla.engine.distributed import World, agreed, any_of, gather, join_world, mean_of
from rfla.engine.hooks import Hooks, Run
from rfla.engine.inference import Inference
from rfla.engine.processes import needs_several, tokens_of
from rfla.engine.trainer import train
from rfla.errors import ConfigError, DataError, RflaError
from rfla.models import zoo
from rfla.predict.command import predict
from rfla.predict.validation import validate

Job = Callable[[int], Any]
# Norm layers are frozen by this number (see micro.py): each process would else see the statistics
# of its own images.
FROZEN_NORM = {"assigner.decay": 0.95}


def free_port() -> int:
    with socket.socket() as handle:
        handle.bind(("localhost", 0))
        return int(handle.getsockname()[1])


def child_of(rank: int, count: int, port: int, job: Job, folder: Path) -> int:
    """Fork a process that is told of its peers as torchrun does it; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (folder / f"log{rank}.txt").open("w") as sys.stdout:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            torch.set_num_threads(1)
            job(rank)
        code = 0
    except RflaError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
        code = 2
    except SystemExit as error:
        code = int(str(error))
    except BaseException:
        (folder / f"error{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def in_processes(count: int, job: Job, folder: Path, seconds: float = 240) -> list[tuple[int, str]]:
    """Run `job(rank)` in forked processes; return the exit code and the error of each.

    None may outlive this: a process of a run that lost its peer waits for minutes where it should
    end.
    """
    port = free_port()
    children = [child_of(rank, count, port, job, folder) for rank in range(count)]
    deadline, codes = time.monotonic() + seconds, dict[int, int]()
    while len(codes) < count and time.monotonic() < deadline:
        for child in set(children) - codes.keys():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    hanging = set(children) - codes.keys()
    for child in hanging:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not hanging, f"{len(hanging)} processes did not end in {seconds} s"
    errors = [folder / f"error{rank}.txt" for rank in range(count)]
    return [
        (codes[c], e.read_text() if e.exists() else "")
        for c, e in zip(children, errors, strict=True)
    ]


class Losses(Hooks):
    """Writes the loss of each batch, the mean over the processes, to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.values = path, []

    def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
        mean = mean_of(run.world, {name: part.detach() for name, part in losses.items()})
        self.values.append({name: float(mean[name]) for name in sorted(mean)})
        if run.is_main:
            self.path.write_text(json.dumps(self.values))


class Diary(Hooks):
    """Writes what each global batch was and lost, one line a step.

    Ends its process by SIGKILL after step `last`.
    """

    def __init__(self, path: Path, last: int | None = None) -> None:
        self.path, self.last, self.batches = path, last, 3

    def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
        step = run.epoch * self.batches + run.state.position.batch
        mean = mean_of(run.world, {name: part.detach() for name, part in losses.items()})
        rows = [
            row
            for share in gather(run.world, run.state.meter.recent[-1].indices.tolist())
            for row in share
        ]
        if run.is_main:
            with self.path.open("a") as file:
                file.write(
                    json.dumps([step, rows, {name: float(mean[name]) for name in sorted(mean)}])
                    + "\n"
                )
        if step == self.last:
            mean_of(run.world, mean)  # nobody dies before the main process has written
            os.kill(os.getpid(), signal.SIGKILL)

    def read(self) -> list[tuple[int, list[int], dict[str, float]]]:
        return [tuple(json.loads(line)) for line in self.path.read_text().splitlines()]


def compare(
    count: int, settings: Callable[..., dict[str, Any]], tmp_path: Path, **changes: Any
) -> None:
    """One process and `count` train on the same global batches: equal losses, weights, figures."""
    given = settings(**{"batch": 4, "epochs": 2} | FROZEN_NORM | changes)

    def job(rank: int) -> None:
        train(load_config(given | {"name": "many"}, mode="train"), Losses(tmp_path / "many.json"))

    assert in_processes(count, job, tmp_path) == [(0, "")] * count
    single = train(
        load_config(given | {"name": "one"}, mode="train"), Losses(tmp_path / "one.json")
    )
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("many", "one"))
    assert len(ours) == len(theirs) >= 4
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5), step
    many = tmp_path / "runs" / "many"
    for key, tensor in load_file(single.last).items():
        torch.testing.assert_close(
            load_file(many / "weights" / "last.safetensors")[key], tensor, rtol=1e-4, atol=1e-6
        )
    assert f"{count} processes" in (tmp_path / "log0.txt").read_text()
    assert (tmp_path / "log1.txt").read_text() == ""  # one log


def test_two_processes_train_as_one(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    compare(2, settings, tmp_path)


@pytest.mark.slow
def test_rfd_in_two_processes_trains_as_one(
    settings: Callable[..., dict[str, Any]],
    micro: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its losses are for each unit of quality, and each positive, of all processes."""
    monkeypatch.setitem(zoo.DETECTORS, "rfd", micro.MicroRFD)
    given = {"model": "rfd", "optimizer": "sgd", "head.norm": "none"}
    compare(2, settings, tmp_path, **given)


@pytest.mark.slow
def test_two_processes_measure_fields_as_one(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """At the start and at each epoch: what is measured in one is used in all."""
    keys = {"assigner.fields": "measured", "assigner.refresh_fields": 1}
    compare(2, settings, tmp_path, **keys)


@pytest.mark.slow
def test_four_processes_train_as_one(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    compare(4, settings, tmp_path, ema=0.9, accumulate=2, save_minutes=1e-9, epochs=3)


@pytest.mark.slow
def test_a_run_that_changes_its_number_of_processes_at_each_kill(
    settings: Callable[..., dict[str, Any]], make_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Two processes, killed in epoch 1; one, killed in epoch 2.

    Four to the end: as one that was never killed.
    """
    data = str(
        make_set(tmp_path / "ten", images=10)
    )  # three batches of four: the last one is filled up
    given = settings(data=data, batch=4, epochs=3, ema=0.9, save_minutes=1e-9, **FROZEN_NORM)

    unbroken, broken = Diary(tmp_path / "unbroken.jsonl"), tmp_path / "broken.jsonl"
    train(load_config(given | {"name": "unbroken"}, mode="train"), unbroken)
    resumed = {"resume": str(tmp_path / "runs" / "broken")}
    for count, start, last in (
        (2, given | {"name": "broken"}, 2),
        (1, resumed, 5),
        (4, resumed, None),
    ):

        def job(rank: int, start: dict[str, Any] = start, last: int | None = last) -> None:
            train(load_config(start, mode="train"), Diary(broken, last))

        assert (
            in_processes(count, job, tmp_path)
            == [(0 if last is None else -signal.SIGKILL, "")] * count
        )
    ours = Diary(broken).read()
    assert [step for step, _, _ in ours] == [
        1,
        2,
        2,
        3,
        4,
        5,
        5,
        6,
        7,
        8,
        9,
    ]  # a step whose state was not written: again
    theirs = {step: (rows, losses) for step, rows, losses in unbroken.read()}
    assert len(theirs) == 9
    for step, rows, losses in ours:
        assert rows == theirs[step][0], step
        assert losses == pytest.approx(theirs[step][1], rel=1e-5, abs=1e-5), step
    for name in ("last", "best"):
        files = [
            tmp_path / "runs" / run / "weights" / f"{name}.safetensors"
            for run in ("broken", "unbroken")
        ]
        one, other = map(load_file, files)
        assert one.keys() == other.keys()
        for key, tensor in other.items():
            torch.testing.assert_close(one[key], tensor, rtol=1e-4, atol=1e-6)


def test_validation_and_prediction_are_those_of_one_process(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    weights = str(train(load_config(settings(epochs=1, val=False), mode="train")).best)
    common = {
        "model": weights,
        "device": "cpu",
        "project": str(tmp_path / "runs"),
        "batch": 2,
        "conf": 0.0001,
    }
    data = {"data": settings()["data"], "workers": 0, "save_json": True, "plots": False}
    source = {"source": settings()["data"] + "/images", "save": False}
    # Of a single scene each process takes a part of the slices; of an unreadable one too.
    first = sorted(Path(source["source"]).iterdir())[0]
    scene = source | {"source": str(first), "slice": 32, "overlap": 8, "imgsz": 32}

    def job(name: str) -> None:
        validate(load_config(common | data | {"name": f"val_{name}"}, mode="val"))
        predict(load_config(common | source | {"name": f"predict_{name}"}, mode="predict"))
        predict(load_config(common | scene | {"name": f"scene_{name}"}, mode="predict"))

    assert in_processes(2, lambda rank: job("many"), tmp_path) == [(0, ""), (0, "")]
    job("one")
    for verb in ("val", "predict", "scene"):
        many, one = (
            tmp_path / "runs" / f"{verb}_{name}" / "predictions.json" for name in ("many", "one")
        )
        assert json.loads(many.read_text()) == json.loads(one.read_text()) != []


def test_an_error_of_all_is_told_once_and_of_one_with_its_number(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def job(rank: int) -> None:
        train(
            load_config(
                settings(data=str(tmp_path / "gone") if rank else settings()["data"]), mode="train"
            )
        )

    (first, error), (second, quiet) = in_processes(2, job, tmp_path)
    assert (first, second, quiet) == (2, 2, "")
    assert error.startswith("process 1: ") and "gone" in error


def test_a_full_memory_of_one_process_halves_the_validation_of_all(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The epoch is kept, and the figures are those of a run that had the room."""
    real = Inference.__call__
    given = settings(batch=4, epochs=1, **FROZEN_NORM)

    def job(rank: int) -> None:
        def limited(self: Inference, images: Tensor, *rest: Any) -> Any:
            if rank == 1 and len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, images, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Inference, "__call__", limited)
            result = train(load_config(given | {"name": "full"}, mode="train"))
        if rank == 0:
            assert result.metrics is not None
            (tmp_path / "ap.txt").write_text(repr(result.metrics.ap))

    assert in_processes(2, job, tmp_path) == [(0, ""), (0, "")]
    assert "out of memory in the validation" in (tmp_path / "log0.txt").read_text()
    usual = train(load_config(given | {"name": "usual"}, mode="train")).metrics
    assert usual is not None
    assert float((tmp_path / "ap.txt").read_text()) == pytest.approx(usual.ap, abs=1e-4)


def test_a_dead_process_ends_the_run_in_seconds(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    class Dies(Hooks):
        def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
            if run.world.rank == 1 and run.state.position.iteration == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    def job(rank: int) -> None:
        train(load_config(settings(epochs=50, val=False), mode="train"), Dies())

    (main, error), (dead, _) = in_processes(2, job, tmp_path, seconds=120)
    assert (main, dead) == (2, -signal.SIGKILL)
    assert error == "another process of this run has died; no state was saved yet: start again"


@pytest.mark.parametrize("failure", ["killed", "out of memory", "unreadable"])
def test_a_process_that_fails_in_the_middle_of_a_scene(
    settings: Callable[..., dict[str, Any]], tmp_path: Path, failure: str
) -> None:
    """Of two scenes the second process dies in the second one, or cannot read its part of it.

    Nobody hangs, the exit code tells, the first scene is there, and a run that broke off goes on.
    """
    pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    weights = str(train(load_config(settings(epochs=1, val=False), mode="train")).best)
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(scenes / f"{number}.tif"), pixels)
    given = {"model": weights, "source": str(scenes), "slice": 32, "overlap": 8, "imgsz": 32}
    given |= {"device": "cpu", "project": str(tmp_path / "runs"), "batch": 1, "conf": 0.0001}
    given |= {"save": False}
    alone = predict(load_config(given | {"name": "alone"}, mode="predict")).run_dir
    run = tmp_path / "runs" / "several"
    taken = 0

    def failing(real: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Fail at the seventh slice: of nine slices of each scene this process takes five."""

        def call(*rest: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken < 7:
                return real(*rest)
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("2.tif: gone") if kind == "unreadable" else RuntimeError("no memory")

        return call

    def job(rank: int) -> None:
        reads = failure == "unreadable"
        place, name = (RasterScene, "read") if reads else (Inference, "__call__")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rfla.data.scenes.BY_WINDOWS", 1)
            if rank == 1:
                patch.setattr(place, name, failing(getattr(place, name), failure))
            done = predict(load_config(given | {"name": "several"}, mode="predict"))
        raise SystemExit(1 if done.skipped else 0)

    (main, error), (other, reason) = in_processes(2, job, tmp_path, seconds=120)
    rows = json.loads((alone / "predictions.json").read_text())
    first = [row for row in rows if row["image_id"] == "1.tif"]
    if failure == "unreadable":
        assert (main, other) == (1, 1)
        assert "skipped: 2.tif: gone" in (tmp_path / "log0.txt").read_text()
    else:
        assert (main, other) == (2, -signal.SIGKILL if failure == "killed" else 1)
        assert error == "another process of this run has died"
        assert ("RuntimeError: no memory" in reason) == (failure == "out of memory")
        assert f"go on: rfla predict resume={run}" in (tmp_path / "log0.txt").read_text()
    assert json.loads((run / "predictions.json").read_text()) == first != []
    if failure != "unreadable":
        predict(load_config({"resume": str(run)}, mode="predict"))
        assert json.loads((run / "predictions.json").read_text()) == rows


def test_a_stopped_process_is_noticed(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """SIGSTOP closes no connection: only a sign of life that does not come tells of it."""

    class Stops(Hooks):
        def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
            if run.world.rank == 1 and run.state.position.iteration == 2:
                os.kill(os.getpid(), signal.SIGSTOP)

    def job(rank: int) -> None:
        with (tmp_path / f"stderr{rank}.txt").open("w") as sys.stderr:
            train(load_config(settings(epochs=50, val=False, timeout=3), mode="train"), Stops())

    port = free_port()
    main, stopped = (child_of(rank, 2, port, job, tmp_path) for rank in range(2))
    deadline, ended, status = time.monotonic() + 120, 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(main, os.WNOHANG)
        time.sleep(0.05)
    for child in {main, stopped} - {ended}:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended and os.waitstatus_to_exitcode(status) == 2
    assert (tmp_path / "stderr0.txt").read_text() == (
        "error: process 1 of this run has stopped (no sign of life for 3 s); "
        "no state was saved yet: start again\n"
    )


def test_a_world_of_one_sends_nothing() -> None:
    alone, value = World(), {"a": torch.tensor(2.0)}
    assert gather(alone, 3) == [3]
    assert any_of(alone, (True, False), torch.device("cpu")) == [True, False]
    assert mean_of(alone, value) == value
    with pytest.raises(ConfigError, match="mine"), agreed(alone):
        raise ConfigError("mine")


def test_devices_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert needs_several("0,1") and not needs_several("0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(select_device(d)) for d in ("auto", "2,3", "cuda", "3")] == [
        "cuda:1",
        "cuda:3",
        "cuda:1",
        "cuda:3",
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not needs_several("0,1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU in the list"):
        select_device("0,1")


def test_several_devices_that_are_not_there(settings: Callable[..., dict[str, Any]]) -> None:
    cfg = load_config(settings(device="0,99"), mode="train")
    with pytest.raises(ConfigError, match="device="):
        train(cfg)
    assert not Path(str(cfg.project)).exists()


@pytest.mark.parametrize("run", [validate, predict])
def test_only_training_starts_processes_of_its_own(run: Callable[..., Any], tmp_path: Path) -> None:
    given = {"model": "fcos_p2", "data": "demo", "source": "in", "device": "0,1"}
    with pytest.raises(
        ConfigError,
        match="device=0,1: start it as torchrun --standalone --nproc-per-node 2 -m rfla",
    ):
        run(load_config(given))


def test_hooks_do_not_cross(
    settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfla.engine.processes.select_device", lambda _: None)
    with pytest.raises(ConfigError, match="start your script with torchrun"):
        train(load_config(settings(device="0,1"), mode="train"), Hooks())


def test_given_keys_survive_the_command_line(settings: Callable[..., dict[str, Any]]) -> None:
    from rfla.cfg import Config
    from rfla.cfg.tokens import parse_tokens

    given = settings(freeze=["head.cls"], time=0.5, **{"assigner.topk": [2, 1]})
    cfg = load_config(given, mode="train")
    again = load_config(parse_tokens(tokens_of(cfg, cfg.given), Config), mode="train")
    assert again == cfg and again.given == cfg.given


@pytest.mark.slow
def test_torchrun(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The real launcher with two processes on the CPU; then a run that fails in both."""
    script = Path(__file__).with_name("micro.py")
    tokens = [
        f"{key}={json.dumps(v) if not isinstance(v, str) else v}"
        for key, v in settings(epochs=1).items()
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "train", *tokens], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("writing to") == 1 and "2 processes" in done.stdout
    assert (tmp_path / "runs" / "train" / "weights" / "best.safetensors").exists()
    failed = subprocess.run(
        [*command, "train", *tokens, "freeze=[spine]"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode != 0
    assert failed.stderr.count("error: freeze=spine") == 1


def test_world_size_alone_is_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ConfigError,
        match=r"WORLD_SIZE=2 is set, but not RANK, MASTER_ADDR, MASTER_PORT: start with",
    ):
        join_world(torch.device("cpu"))
