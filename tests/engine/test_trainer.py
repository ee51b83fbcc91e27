"""What the keys of a training do, what it leaves, and how it ends when something is wrong."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rfla.cfg import Config, load_config, load_saved
from rfla.engine import build
from rfla.engine import trainer as trainer_file
from rfla.engine.console import metric_line
from rfla.engine.device import precision_holds
from rfla.engine.hooks import Hooks, Run
from rfla.engine.model_source import source_model
from rfla.engine.state import RunState
from rfla.engine.trainer import Trainer, train
from rfla.errors import (
    ConfigError,
    DataError,
    ExistingRunError,
    MetricError,
    RflaError,
    WeightsError,
)
from rfla.models.detector import StepLosses
from rfla.models.weights import read_metadata
from rfla.predict.validation import validate

Configure = Callable[..., Config]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Act(Hooks):
    """Does something at one moment: `Act(batch_end=function)`."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            setattr(self, name, function)


def test_what_a_run_leaves(config: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(config(plots=True, save_period=1, ema=0.9, accumulate=2, gsd=0.5))
    names = {
        str(path.relative_to(result.run_dir))
        for path in result.run_dir.rglob("*")
        if path.is_file()
    }
    pictures = {f"train_batch{i}.jpg" for i in range(3)} | {
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
    }
    weights = {
        f"weights/{name}.safetensors" for name in ("best", "last", "epoch1", "epoch2", "last.state")
    }
    assert {
        "args.yaml",
        "results.csv",
        "results.png",
        "labels.png",
        "report.html",
        "results.json",
    } <= names
    assert pictures <= names and weights <= names
    assert not {name for name in names if Path(name).name.startswith(".")}
    written = rows(result.run_dir)
    assert [row["epoch"] for row in written] == ["1", "2"]
    assert all(value != "" for row in written for value in row.values())
    expected = {
        "train/loss",
        "train/loss_cls",
        "train/grad_norm",
        "train/positives_per_box",
        "lr",
        "images_per_s",
    }
    assert (
        expected | {"data_wait", "memory_mb", "skipped", "time", "metrics/ap", "metrics/ap_vt"}
        <= written[0].keys()
    )
    metadata = read_metadata(result.best)
    assert (metadata["names"], metadata["imgsz"], metadata["run"]["seed"]) == (
        ["ship", "car"],
        64,
        0,
    )
    assert metadata["gsd"] == 0.5 and 5 <= metadata["objects"]["px_99"] <= 12
    out = capsys.readouterr().out
    assert "pos/box" in out and f"rfla val model={result.best}" in out
    assert result.metrics is not None and result.metrics.ap == pytest.approx(
        metadata["metrics"]["ap"]
    )


def test_brackets_in_paths_and_names_are_no_markup(
    settings: Callable[..., dict[str, Any]],
    make_set: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`[/x]` would end a style that nobody began, `[red]` would vanish."""
    data = make_set(tmp_path / "[red]set", names=("[/ship]", "[bold]car"))
    given = settings(
        data=str(data), project=str(tmp_path / "[/runs]"), epochs=1, **{"head.norm": "gn"}
    )
    train(load_config(given, mode="train"))
    lines = capsys.readouterr().out.splitlines()
    told = next(line for line in lines if line.startswith("given:"))
    assert f" data={data} " in told and " pretrained=false " in told
    assert f"writing to {tmp_path}/[/runs]/train" in lines
    assert any(line.startswith("[/ship] ") for line in lines) and any(
        line.startswith("[bold]car ") for line in lines
    )


def test_what_is_of_no_use_is_said(config: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(epochs=1, val=False, batch=8, classes=["ship"], save=False))
    lines = capsys.readouterr().out.splitlines()
    assert "not used by training: classes, save" in lines
    assert "batch=8: train has 6 images, so a step sees some more than once" in lines


def test_objects_that_imgsz_makes_too_small_are_counted(
    config: Configure,
    make_set: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Squares of 5 to 11 px in images of 256 px, seen at a quarter: those under 16 px are lost."""
    data = str(make_set(tmp_path / "large", size=256))
    train(config(data=data, epochs=1, val=False))
    out = capsys.readouterr().out
    assert (
        "train: 24 of 24 objects shrink below 4 px at imgsz=64 (their images to 0.25 of the size)"
        in out
    )
    assert "imgsz=224 prevents this" in out
    train(config(epochs=1, val=False))
    assert "shrink below" not in capsys.readouterr().out


def test_ignored_regions_crowds_and_images_without_boxes(config: Configure, tiny_set: Path) -> None:
    """Trained, resumed, validated and drawn: an ignored region has no class."""
    path = tiny_set / "annotations" / "val.json"
    document = json.loads(path.read_text())
    for entry, change in zip(
        document["annotations"], ({"ignore": 1}, {"iscrowd": 1}), strict=False
    ):
        entry.update(change)
    last = document["images"][-1]["id"]
    kept = [entry for entry in document["annotations"] if entry["image_id"] != last]
    for split in ("train", "val"):
        (tiny_set / "annotations" / f"{split}.json").write_text(
            json.dumps(document | {"annotations": kept})
        )
    result = train(config(epochs=1, plots=True))
    train(load_config({"resume": str(result.run_dir), "epochs": 2}, mode="train"))
    metrics = validate(
        load_config(
            {
                "model": str(result.best),
                "data": str(tiny_set),
                "project": str(tiny_set.parent / "runs"),
                "device": "cpu",
                "workers": 0,
            },
            mode="val",
        )
    )
    assert metrics.ap >= 0
    for run in (result.run_dir, tiny_set.parent / "runs" / "val"):
        assert (run / "report.html").exists() and (run / "val_batch0_labels.jpg").exists()


def test_a_run_repeats_to_the_bit_with_as_many_threads(config: Configure) -> None:
    torch.set_num_threads(2)  # the fixture of this directory takes it back
    first, second = (load_file(train(config(epochs=1, val=False)).last) for _ in range(2))
    assert same(first, second)


def test_a_size_without_boxes_has_no_figure() -> None:
    assert "AP 0.250 APm -" in metric_line({"ap": 0.25, "ap_m": -1.0}, best=False).plain


def test_keys_that_change_the_run(config: Configure) -> None:
    """Each of these gives other weights than the run without it: no key does nothing."""

    def weights(**changes: Any) -> dict[str, Tensor]:
        result = train(config(**{"epochs": 1, "val": False, "warmup_iters": 0} | changes))
        return load_file(result.last)

    usual = weights()
    assert same(weights(), usual)
    for changes in (
        {"seed": 1},
        {"lr_batch": 1},
        {"clip_grad": 0.1},
        {"multi_scale": 0.5},
        {"bias_lr_mult": 3.0},
        {"ema": 0.5},
        {"backbone_lr_mult": 0.0},
        {"weight_decay": 0.5},
        {"momentum": 0.1},
        {"accumulate": 2},
        {"fraction": 0.5},
        {"single_cls": True},
        {"aug.fliplr": 0.0},
        {"optimizer": "adamw"},
        {"cos_lr": True},
        {"norm_decay": 0.0},
    ):
        assert not same(weights(**changes), usual), changes


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[key]) for key, tensor in ours.items()
    )


def test_a_warm_up_changes_a_run_that_is_long_enough(config: Configure) -> None:
    """It takes at most a tenth of a run: of 12 steps 1, which is then taken at a thousandth."""

    def weights(**changes: Any) -> dict[str, Tensor]:
        return load_file(train(config(epochs=4, val=False, batch=2, **changes)).last)

    usual = weights(warmup_iters=0)
    assert same(weights(warmup_iters=0), usual)
    assert not same(weights(warmup_iters=50), usual)
    assert not same(
        weights(warmup_iters=50, warmup="constant", warmup_ratio=0.5), weights(warmup_iters=50)
    )


def test_cached_images_are_the_same_images(config: Configure) -> None:
    lasts = [
        load_file(train(config(epochs=1, val=False, cache=place)).last)
        for place in ("off", "ram", "disk")
    ]
    for other in lasts[1:]:
        assert all(torch.equal(other[key], tensor) for key, tensor in lasts[0].items())


def test_freeze(config: Configure) -> None:
    started: dict[str, Tensor] = {}

    def remember(run: Run) -> None:
        started.update({key: value.clone() for key, value in run.net.state_dict().items()})

    last = load_file(
        train(config(epochs=1, val=False, freeze=["backbone"]), Act(train_start=remember)).last
    )
    same = {key.split(".")[0] for key, tensor in last.items() if torch.equal(tensor, started[key])}
    assert "backbone" in same
    assert all(
        torch.equal(tensor, started[key])
        for key, tensor in last.items()
        if key.startswith("backbone")
    )
    assert not all(
        torch.equal(tensor, started[key]) for key, tensor in last.items() if key.startswith("neck")
    )


def test_patience_and_time(config: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    def worthless(run: Run, epoch: int) -> None:
        run.state.position.best_ap = 2.0
        run.state.position.best_epoch = run.state.position.improved_epoch = 1

    train(config(epochs=9, patience=2), Act(epoch_start=worthless))
    assert "stopping after epoch 3: no better AP for 2 epochs" in capsys.readouterr().out
    result = train(config(epochs=9, time=1e-9))
    assert len(rows(result.run_dir)) == 1
    assert "stopping after epoch 1: time=1e-09 h is over" in capsys.readouterr().out
    train(
        load_config({"resume": str(result.run_dir)}, mode="train")
    )  # does not train a bit more each time
    assert len(rows(result.run_dir)) == 1
    assert "stopping after epoch 1: time=1e-09 h is over" in capsys.readouterr().out
    train(load_config({"resume": str(result.run_dir), "time": 1, "epochs": 2}, mode="train"))
    assert len(rows(result.run_dir)) == 2


def test_the_rate_falls_within_the_time(config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes 6 minutes: an hour is over after 10, long before 1,000 epochs.

    Epochs of three steps end at shares s of 0.3, 0.6, 0.9 and 1: (1 + cos(pi s)) / 2 of the rate.
    """
    monkeypatch.setattr(RunState, "seconds", property(lambda state: state.position.iteration * 360))
    rate = {"lr0": 1.0, "cos_lr": True, "lrf": 0.0, "backbone_lr_mult": 0.1}
    result = train(config(epochs=1000, time=1, val=False, **rate))
    rates = [float(row["lr"]) for row in rows(result.run_dir)]
    assert rates == pytest.approx([0.7939, 0.3455, 0.0245, 0.0], abs=1e-4)


def test_what_to_type_next_can_be_typed(
    config: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(config(epochs=1, val=False, project=str(tmp_path / "my runs")))
    out = capsys.readouterr().out
    command = next(line for line in out.splitlines() if line.startswith("next ")).split(maxsplit=1)[
        1
    ]
    assert shlex.split(command) == ["rfla", "val", f"model={result.best}", f"data={tmp_path}/set"]
    assert "val: " not in out  # nothing of a split that is not looked at


def test_tensorboard(config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    result = train(config(epochs=1, val=False, tensorboard=True))
    assert list(result.run_dir.glob("events.out.tfevents*"))


def test_without_tensorboard(config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ConfigError, match=r"tensorboard=true: not installed .*pip install '.\[log\]'"
    ):
        train(config(tensorboard=True))


# ---------------------------------------------------------------------- health


def poison(run: Run, from_batch: int, to_batch: int) -> None:
    """Make the classification loss NaN in some batches of the run."""
    real, count = run.net.loss, iter(range(10_000))

    def loss(*inputs: Any) -> StepLosses:
        step = real(*inputs)
        if from_batch <= next(count) < to_batch:
            step.losses["loss_cls"] = step.losses["loss_cls"] * float("nan")
        return step

    run.net.loss = loss  # type: ignore[method-assign]


def test_a_loss_that_is_not_finite_is_named_skipped_and_counted(
    config: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(config(), Act(train_start=lambda run: poison(run, 1, 2)))
    out = " ".join(capsys.readouterr().out.split())
    assert "skipped a step: loss_cls, gradient not finite; images" in out
    assert ".png" in out and "skipped 1" in out
    assert [row["skipped"] for row in rows(result.run_dir)] == ["1", "0"]
    assert all(torch.isfinite(tensor).all() for tensor in load_file(result.last).values())


def test_a_loss_that_never_comes_back_ends_the_run_with_good_weights(
    config: Configure, tmp_path: Path
) -> None:
    with pytest.raises(
        RflaError,
        match=r"not finite in 10 batches in a row; the last good weights are in .*try a lower",
    ):
        train(config(epochs=9, val=False), Act(train_start=lambda run: poison(run, 3, 10_000)))
    last = load_file(tmp_path / "runs" / "train" / "weights" / "last.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in last.values())


def test_a_corrupt_image_is_replaced_and_named(
    config: Configure, tiny_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tiny_set / "images" / "2.png").write_bytes(b"not an image")
    result = train(config(epochs=1))
    assert len(rows(result.run_dir)) == 1
    assert sum("2.png" in record.message for record in caplog.records) >= 1


def test_a_bad_data_set_trains_to_the_end(
    config: Configure,
    make_set: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Corrupt images, boxes without width, and an image with 3,000 boxes."""
    root = make_set(tmp_path / "bad", images=10)
    (root / "images" / "4.png").write_bytes(b"not an image")
    for split in ("train", "val"):
        path = root / "annotations" / f"{split}.json"
        document = json.loads(path.read_text())
        document["annotations"][0]["bbox"][2] = 0
        crowd = [
            {"id": 1000 + i, "image_id": 3, "category_id": 1, "bbox": [i % 58, i // 58, 6, 6]}
            for i in range(3000)
        ]
        document["annotations"] += [entry | {"area": 36, "iscrowd": 0} for entry in crowd]
        path.write_text(json.dumps(document))
    result = train(config(data=str(root), epochs=1))
    assert len(rows(result.run_dir)) == 1
    out = capsys.readouterr().out
    assert re.search(r"train: 10 images, 3,0\d\d boxes; 1 ", out)
    for split in ("train", "val"):
        assert re.search(
            rf"^{split}: 1 image could not be read, the first: .*4\.png: ", out, re.MULTILINE
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_vanishes_in_the_middle(
    config: Configure, tiny_set: Path, workers: int
) -> None:
    def vanish(run: Run, epoch: int) -> None:
        if epoch == 1:
            shutil.rmtree(tiny_set / "images")

    with pytest.raises(
        DataError, match=r"^20 images in a row could not be read; the first: .*\.png.*; go on: "
    ) as caught:
        train(config(epochs=3, workers=workers), Act(epoch_start=vanish))
    assert "\n" not in str(caught.value)
    run = tiny_set.parent / "runs" / "train"
    assert load_file(run / "weights" / "last.state.safetensors") and load_file(
        run / "weights" / "best.safetensors"
    )
    shutil.rmtree(tiny_set)
    with pytest.raises(
        DataError,
        match=r"no such data .*if it has moved, give its new place: data= is allowed with resume=",
    ):
        train(load_config({"resume": str(run)}, mode="train"))


@pytest.mark.parametrize("files", [0, 1, 2, 3])
def test_a_full_disk(config: Configure, tmp_path: Path, files: int) -> None:
    """So many more files can be written after epoch 1: one line, and earlier files are whole."""
    flush, left = os.fsync, [files * 2]  # the file and its directory

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    def fill(run: Run, epoch: int) -> None:
        if epoch == 1:
            os.fsync = full

    with pytest.raises(
        ExistingRunError,
        match=r"^cannot write .*: No space left on device; .*resume=.*/runs/train$",
    ):
        try:
            train(config(epochs=3), Act(epoch_start=fill))
        finally:
            os.fsync = flush
    weights = tmp_path / "runs" / "train" / "weights"
    names = {path.name for path in weights.iterdir()}  # nothing half written beside them
    assert names - {"last.state.safetensors.previous"} == {
        f"{n}.safetensors" for n in ("best", "last", "last.state")
    }
    resumed = train(
        load_config({"resume": str(tmp_path / "runs" / "train"), "device": "cpu"}, mode="train")
    )
    assert len(rows(resumed.run_dir)) == 3


# ---------------------------------------------------------------------- ending and going on


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU]
)
@pytest.mark.parametrize("moment", ["batch_end", "checkpoint"])
def test_stopping_leaves_usable_weights_and_a_state(
    config: Configure, tmp_path: Path, number: int, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []

    def stop(*_: Any) -> None:
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=2), Act(**{moment: stop}))
    run = tmp_path / "runs" / "train"
    assert f"go on: rfla train resume={run}" in capsys.readouterr().out
    assert load_file(run / "weights" / "last.safetensors")
    assert signal.getsignal(number) == before
    train(load_config({"resume": str(run)}, mode="train"))
    whole = train(config(epochs=2, name="whole"))
    assert all(
        torch.equal(tensor, load_file(whole.best)[key])
        for key, tensor in load_file(run / "weights" / "best.safetensors").items()
    )


def test_a_refused_resume_changes_nothing(
    config: Configure, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(config(epochs=1, plots=True, gallery=0)).run_dir
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = make_set(tmp_path / "other", images=7)
    with pytest.raises(WeightsError, match=r"the run had 6 images, .* has 7; start a new run"):
        train(load_config({"resume": str(run), "data": str(other), "epochs": 2}, mode="train"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resuming_what_somebody_has_changed(config: Configure) -> None:
    run = train(config(epochs=1)).run_dir
    (run / "results.csv").write_text("a;b\n1;2\n")
    with pytest.raises(
        ExistingRunError, match=r"results.csv: no longer the table of this run; move it away"
    ):
        train(load_config({"resume": str(run), "epochs": 2}, mode="train"))
    (run / "results.csv").unlink()
    for state in run.glob("weights/last.state*"):
        state.unlink()
    with pytest.raises(
        WeightsError,
        match=rf"no training state .*model={run}/weights/last.safetensors starts a new run",
    ):
        train(load_config({"resume": str(run), "epochs": 2}, mode="train"))
    (run / "args.yaml").write_text("epochs: 2\n")
    with pytest.raises(ConfigError, match=r"args.yaml: not the settings of a run"):
        load_config({"resume": str(run)}, mode="train")


def test_a_run_goes_on_as_it_began(
    config: Configure, micro: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all ImageNet weights, or none, since: what a run needs is in its state.

    The first starts at random as there are no weights, the second is fine-tuned from the first.
    """

    def look(*_: Any) -> bool:
        raise AssertionError("a resumed run looks for weights")

    begun = train(config(epochs=1, pretrained=True, **{"backbone.frozen_stages": 1})).run_dir
    assert not load_saved(begun / "args.yaml").pretrained
    source = tmp_path / "source.safetensors"
    shutil.copy(begun / "weights" / "last.safetensors", source)
    tuned = train(config(model=str(source), epochs=1)).run_dir
    source.unlink()
    monkeypatch.setattr(micro.MicroBackbone, "load_imagenet", look)
    for run in (begun, tuned):
        train(load_config({"resume": str(run), "epochs": 2}, mode="train"))
        assert len(rows(run)) == 2
        last = read_metadata(run / "weights" / "last.safetensors")
        assert last["model"]["backbone"]["frozen_stages"] == -1


def test_unjudged_weights_take_no_judged_ones_place(config: Configure) -> None:
    run = train(config(epochs=1)).run_dir
    best = (run / "weights" / "best.safetensors").read_bytes()
    train(load_config({"resume": str(run), "epochs": 2, "val": False}, mode="train"))
    assert (run / "weights" / "best.safetensors").read_bytes() == best


def test_images_that_other_processes_could_not_read_are_counted(
    config: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_two(_: Any, skipped: dict[int, str]) -> list[dict[int, str]]:
        return [skipped, {3: "3.png: empty file"}]

    monkeypatch.setattr(trainer_file, "gather", of_two)
    train(config(epochs=1, val=False))
    assert (
        "train: 1 image could not be read, the first: 3.png: empty file" in capsys.readouterr().out
    )


def test_resuming_what_is_finished_or_belongs_to_somebody(
    config: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(config(epochs=1))
    again = train(load_config({"resume": str(result.run_dir)}, mode="train"))
    assert "this run has completed its 1 epochs" in capsys.readouterr().out
    # type: ignore[union-attr]
    assert again.metrics is not None and again.metrics.ap == pytest.approx(result.metrics.ap)
    more = train(load_config({"resume": str(result.run_dir), "epochs": 2}, mode="train"))
    assert len(rows(more.run_dir)) == 2
    settings = (result.run_dir / "args.yaml").read_bytes()
    with pytest.raises(ConfigError, match="epochs=1: this run has completed 2; give more"):
        train(load_config({"resume": str(result.run_dir), "epochs": 1}, mode="train"))
    assert (result.run_dir / "args.yaml").read_bytes() == settings
    repeated = load_config({"cfg": str(result.run_dir / "args.yaml")}, mode="train")
    assert not repeated.resume and "resume" not in repeated.given  # a new run
    (result.run_dir / "weights" / "last.state.safetensors").write_bytes(b"junk")
    (result.run_dir / "weights" / "last.state.safetensors.previous").unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="damaged training state"):
        train(load_config({"resume": str(result.run_dir), "epochs": 3}, mode="train"))


def test_two_runs_into_one_directory(config: Configure) -> None:
    def second(run: Run) -> None:
        with pytest.raises(ExistingRunError, match="another process writes into"):
            train(config(exist_ok=True))

    result = train(config(epochs=1, val=False), Act(train_start=second))
    assert result.last.exists()


def test_what_cannot_be_trained(
    config: Configure, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="nothing is left to train"):
        train(config(freeze=["backbone", "neck", "head"]))
    with pytest.raises(MetricError, match=r"unknown protocol 'aitd'.*did you mean 'aitod'"):
        train(config(protocol="aitd"))
    other = make_set(tmp_path / "other", names=("bus",))
    shutil.copy(
        make_set(tmp_path / "third") / "annotations" / "val.json",
        other / "annotations" / "val.json",
    )
    with pytest.raises(DataError, match="train and val name different classes"):
        train(config(data=str(other)))


# ---------------------------------------------------------------------- precision and compilation


def test_half_precision_that_is_not_the_same_is_turned_off(
    config: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = torch.device("cpu")
    net = source_model(config(), ["ship", "car"]).net
    assert precision_holds(net, cpu, torch.bfloat16)
    honest = net.raw
    monkeypatch.setattr(
        net,
        "raw",
        lambda x: (
            honest(x)
            if not torch.is_autocast_enabled("cpu")
            else {"cls": [honest(x)["cls"][0] * 9]}
        ),
    )
    monkeypatch.setattr(build, "autocast_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(build, "precision_holds", lambda *_: False)
    train(config(epochs=1, val=False))
    assert (
        "amp: torch.bfloat16 gives other outputs than float32 here; training in float32"
        in capsys.readouterr().out
    )


def test_bfloat16_trains(config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "autocast_dtype", lambda *_: torch.bfloat16)
    result = train(config(epochs=1))
    losses = float(rows(result.run_dir)[0]["train/loss"])
    monkeypatch.undo()
    assert losses == pytest.approx(
        float(rows(train(config(epochs=1)).run_dir)[0]["train/loss"]), rel=0.05
    )


@pytest.mark.slow
def test_compiled_losses_are_the_same(config: Configure) -> None:
    losses = [
        float(rows(train(config(epochs=1, compile=c)).run_dir)[0]["train/loss"])
        for c in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


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
    (first.run_dir / "weights" / ".last.state.safetensors.0a1b2c3d").write_bytes(b"half")

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


def test_a_hook_that_stops_the_last_epoch_stops_nothing(config: Configure) -> None:
    def stop(run: Run, _: Any) -> None:
        run.stop()

    result = train(config(epochs=1), Act(val_end=stop))
    assert result.metrics is not None and len(rows(result.run_dir)) == 1


@pytest.mark.parametrize("when", ["in the report", "after the last step"])
def test_stopped_when_only_the_report_is_left(
    config: Configure,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if when == "in the report":
        monkeypatch.setattr("rfla.engine.run_log.RunLog.finish", stop)
    else:
        monkeypatch.setattr(
            "rfla.engine.trainer.StopSignals.release",
            lambda signals: setattr(signals, "received", True),
        )
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=1))
    out = " ".join(capsys.readouterr().out.split())
    assert "stopped before the report; the best weights are in" in out
    assert "go on: rfla train resume=" in out
