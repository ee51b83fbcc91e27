"""Earlier runs: the settings of one that is continued, and the latest weights."""

from pathlib import Path
from typing import Any

from rfla.cfg.keys import show
from rfla.cfg.layer_files import settings_layer
from rfla.cfg.schema import Config, Mode
from rfla.cfg.setting_layers import Layer, Setting
from rfla.cfg.weights_header import is_weights
from rfla.errors import ConfigError
from rfla.files import home_expanded

# What a run that can be continued has left, below its directory.
TRACES: dict[Mode, str] = {"train": "weights/last.state.safetensors", "predict": ".done.*.jsonl"}

# Keys that do not change what is computed, so that a run may go on with other values.
FREE = frozenset(
    {
        "resume",
        "project",
        "data",
        "device",
        "workers",
        "timeout",
        "cache",
        "max_pixels",
        "compile",
        "epochs",
        "time",
        "patience",
        "val",
        "plots",
        "save_period",
        "save_minutes",
        "verbose",
        "debug",
        "tensorboard",
    }
)
FREE_IN_PREDICT = frozenset(
    {"resume", "project", "device", "timeout", "max_pixels", "batch", "verbose", "debug"}
)


def resumed_layer(given: Layer, resume: Any, mode: Mode) -> tuple[Layer, frozenset[str]]:
    """Lay what the user gave now over the settings of the run that is continued.

    Args:
        given: Settings of the user.
        resume: Which run, as `find_run` takes it.
        mode: The verb of the run.

    Returns:
        All settings, with `resume` as the directory of the run, and the keys that were given then
        or now.

    Raises:
        ConfigError: no such run, or a key was given that would make it another run.
    """
    project = (
        given["project"].value if "project" in given else Config.model_fields["project"].default
    )
    run = find_run(resume, str(project), mode)
    saved, names = settings_layer(run / "args.yaml")
    subject = "data" if mode == "train" else "source"
    if not all(key in saved and saved[key].value is not None for key in ("model", subject)):
        raise ConfigError(
            f"{run / 'args.yaml'}: not the settings of a run: no model or no {subject} in it"
        )
    free = FREE if mode == "train" else FREE_IN_PREDICT
    instead = (
        f", or start a new run from model={run}/weights/last.safetensors" if mode == "train" else ""
    )
    # `model=runs/train/weights/last.safetensors resume` is how another tool has it
    given = {name: one for name, one in given.items() if name != "model" or not _is_of(one, run)}
    for name, setting in given.items():
        if name not in free and not _same(setting.value, saved.get(name)):
            was = show(saved[name].value) if name in saved else "its default"
            raise ConfigError(
                f"resume={run}: {name}={show(setting.value)} cannot be changed on resume (the run "
                f"has {was}); change only {', '.join(sorted(free - {'resume'}))}{instead}"
            )
    place = {"project": str(run.parent), "name": run.name, "resume": str(run)}
    return saved | given | {name: Setting(value) for name, value in place.items()}, frozenset(
        names | given.keys()
    )


def _is_of(model: Setting, run: Path) -> bool:
    """Whether the model is a weights file of the run itself."""
    return isinstance(model.value, str) and home_expanded(model.value).resolve().is_relative_to(
        (run / "weights").resolve()
    )


def _same(value: Any, saved: Setting | None) -> bool:
    if saved is None:
        return False
    return bool(value == saved.value) or show(value) == show(saved.value)


def find_run(resume: Any, project: str, mode: Mode = "train") -> Path:
    """Return the directory that `resume` means.

    It is given itself, or by one of its weights files, or is the latest of `project` (true).

    Raises:
        ConfigError: no such run.
    """
    if resume is True:
        traces = list(Path(project).glob(f"*/{TRACES[mode]}"))
        if not traces:
            what = "with a training state" if mode == "train" else "of predict that was stopped"
            raise ConfigError(
                f"resume=true: no run {what} in {show(project)}; name one: resume=runs/{mode}"
            )
        latest = max(traces, key=lambda trace: trace.stat().st_mtime)
        return latest.parent.parent if mode == "train" else latest.parent
    if not isinstance(resume, str):
        raise ConfigError(
            f"resume={show(resume)}: must be the directory of a run, "
            "or true for the latest of project"
        )
    path = home_expanded(resume)
    run = path.parent.parent if is_weights(str(path)) else path
    if not (run / "args.yaml").is_file():
        needs = "args.yaml and weights/" if mode == "train" else "args.yaml"
        raise ConfigError(f"resume={show(resume)}: no run there (a run has {needs})")
    return run


def latest_weights(project: str | Path) -> Path | None:
    """Return the best weights of the run under `project` that wrote weights last, or None."""
    found = list(Path(project).glob("*/weights/best.safetensors")) or list(
        Path(project).glob("*/weights/last.safetensors")
    )
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
