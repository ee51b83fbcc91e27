"""What a `Trainer` writes and takes up again: weights files for people, and the one state file that resumes a run.

Every file is written beside its place and renamed over the old one. Where that fails (a full disk,
a directory that has become read-only) the run ends with one line, and the files before are as they
were.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfla.cfg.document import to_yaml
from rfla.engine import build, checkpoint
from rfla.engine.distributed import mean_of
from rfla.engine.meter import Meter
from rfla.engine.position import Position
from rfla.errors import ExistingRunError, WeightsError
from rfla.files import write_atomically
from rfla.metrics import Metrics
from rfla.models.weights import save_weights

if TYPE_CHECKING:
    from rfla.engine.trainer import Trainer


@contextmanager
def writing(run_dir: Path, path: Path) -> Iterator[None]:
    """Turn a file that cannot be written into one line that says how to go on.

    Args:
        run_dir: The run's directory.
        path: What is written; an error that names its file is believed more.

    Raises:
        ExistingRunError: The disk is full, or the directory may not be written any more.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # safetensors reports a full disk as its own exception, with the system's words in it
        if number is None and "os error" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or path
        raise ExistingRunError(
            f"cannot write {where}: {reason}; the files written before are whole; {how_to_go_on(run_dir)}"
        ) from error


def how_to_go_on(run_dir: Path) -> str:
    """Return the command that takes up a run which has ended too early."""
    if (run_dir / "weights" / checkpoint.STATE_NAME).exists():
        return f"go on: rfla train resume={shlex.quote(str(run_dir))}"
    return "no state was saved yet: begin anew"


def write_weights(trainer: Trainer, name: str, metrics: Metrics | None) -> Path:
    """Write `weights/<name>.safetensors`: the evaluated weights, and what rebuilds the model from them."""
    path = trainer.run_dir / "weights" / f"{name}.safetensors"
    figures = metrics.figures if metrics is not None else {}
    run = {"data": str(trainer.cfg.data), "epoch": trainer.position.epoch, "seed": trainer.cfg.seed}
    parts = trainer.parts
    metadata = build.weights_metadata(
        parts.model_config, parts.names, trainer.cfg.imgsz, figures, run
    )
    with writing(trainer.run_dir, path):
        save_weights(path, trainer.evaluated_net().state_dict(), metadata)
    trainer.hooks.checkpoint(trainer, path)
    return path


def write_last(trainer: Trainer, metrics: Metrics | None = None) -> None:
    """Write `weights/last.safetensors`, and `best` too if no epoch has made it yet.

    The main process only.
    """
    if not trainer.is_main:
        return
    write_weights(trainer, "last", metrics)
    best = trainer.run_dir / "weights" / "best.safetensors"
    if not (
        trainer.position.best_epoch and best.exists()
    ):  # one may be there from another run, with exist_ok=true
        write_weights(trainer, "best", metrics)


def write_state(trainer: Trainer) -> None:
    """Write everything that a resumed run needs, in one file. All processes call this.

    The main one writes.
    """
    trainer.saved_at = time.perf_counter()
    sums = mean_of(trainer.world, trainer.meter.sums)
    if not trainer.is_main:
        return
    tensors = checkpoint.prefixed("model", trainer.net.state_dict())
    tensors |= checkpoint.prefixed("optimizer", checkpoint.optimizer_tensors(trainer.optimizer))
    tensors |= checkpoint.prefixed("random", checkpoint.random_tensors())
    tensors |= checkpoint.prefixed("meter", sums)
    if trainer.ema is not None:
        tensors |= checkpoint.prefixed("ema", trainer.ema.net.state_dict())
    document = {
        "position": asdict(trainer.position) | {"seconds": trainer.seconds()},
        "meter": trainer.meter.document(),
        "sums": list(sums),  # the file sorts its tensors by name
        "random": checkpoint.random_document(),
        "scaler": trainer.scaler.state_dict(),
        "ema_updates": trainer.ema.updates if trainer.ema is not None else 0,
        "data": data_identity(trainer),
    }
    path = trainer.run_dir / "weights" / checkpoint.STATE_NAME
    with writing(trainer.run_dir, path):
        checkpoint.save_state(path, tensors, document)


def write_settings(trainer: Trainer) -> None:
    """Write `args.yaml` of a resumed run, with the keys that were given anew.

    The main process only.
    """
    path = trainer.run_dir / "args.yaml"
    if trainer.is_main:
        with writing(trainer.run_dir, path):
            write_atomically(path, to_yaml(trainer.cfg))


def data_identity(trainer: Trainer) -> dict[str, Any]:
    """Return what a resumed run must find again in its data, wherever it has moved to."""
    return {"images": len(trainer.parts.train_index), "classes": list(trainer.parts.names)}


def refuse_other_data(trainer: Trainer, document: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with data of other classes, or of so many images that the order would not be the same.

    Raises:
        WeightsError: The data has changed.
    """
    now, before = data_identity(trainer), document.get("data", {})
    for what, value in before.items():
        if what in now and now[what] != value:
            last = path.with_name("last.safetensors")
            raise WeightsError(
                f"{path}: the run had {_shown(value)} {what}, data={trainer.cfg.data} has {_shown(now[what])}: "
                f"that would be another run; train anew from model={last}"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def restore(trainer: Trainer, path: Path) -> None:
    """Go on from a state file.

    Raises:
        WeightsError: It is damaged, with none before it, or made by another model.
    """
    tensors, document, warning = checkpoint.load_latest_state(path)
    if warning:
        trainer.say(warning, "yellow")
    with checkpoint.complete(path):
        refuse_other_data(trainer, document, path)
    checkpoint.restore_module(trainer.net, checkpoint.without_prefix("model", tensors), path)
    checkpoint.restore_optimizer(
        trainer.optimizer, checkpoint.without_prefix("optimizer", tensors), path
    )
    if trainer.ema is not None:
        checkpoint.restore_module(trainer.ema.net, checkpoint.without_prefix("ema", tensors), path)
    with checkpoint.complete(path):
        if trainer.ema is not None:
            trainer.ema.updates = document["ema_updates"]
        if document["scaler"]:
            trainer.scaler.load_state_dict(document["scaler"])
        trainer.position = Position(**document["position"])
        trainer.first_epoch = trainer.position.epoch
        stored = checkpoint.without_prefix("meter", tensors)
        sums = {name: stored[name].to(trainer.device) for name in document["sums"]}
        trainer.meter = Meter(sums=sums, **document["meter"])
        checkpoint.restore_random(checkpoint.without_prefix("random", tensors), document["random"])
        trainer.results.load(trainer.position.epoch)
    position, cfg = trainer.position, trainer.cfg
    trainer.out_of_time = cfg.time is not None and position.seconds > cfg.time * 3600
    if position.epoch >= cfg.epochs:
        trainer.say(
            f"this run has done its {cfg.epochs} epochs; epochs= with more would go on", "yellow"
        )
    else:
        trainer.say(
            f"going on from epoch {position.epoch + 1}, batch {position.batch + 1} ({path})"
        )
