"""Going on with an interrupted run: its settings come from its own `args.yaml`, a few of them may change."""

from pathlib import Path
from typing import Any

from rfla.cfg.keys import show
from rfla.cfg.layers import Layer, Setting, flatten
from rfla.cfg.schema import Config
from rfla.cfg.yaml_file import read_yaml
from rfla.errors import ConfigError

STATE_PATTERN = "*/weights/last.state.safetensors"

# Keys that do not change what is computed, so that a run may go on with other values.
FREE = frozenset(
    {"resume", "project", "data", "device", "workers", "cache", "compile", "epochs", "time", "patience", "val", "plots"}
    | {"save_period", "save_minutes", "verbose", "debug", "tensorboard"}
)


def resumed_layer(given: Layer, resume: Any) -> Layer:
    """Return the settings of the run that is continued, under those that the person gave.

    `resume` becomes the directory of the run.

    Raises:
        ConfigError: no such run, or a key was given that would make it another run.
    """
    project = given["project"].value if "project" in given else Config.model_fields["project"].default
    run = find_run(resume, str(project))
    file = read_yaml(run / "args.yaml")
    saved = flatten(file.values, Config, file.where)
    for name, setting in given.items():
        if name not in FREE and not _same(setting.value, saved.get(name)):
            was = show(saved[name].value) if name in saved else "its default"
            raise ConfigError(
                f"resume={run}: {name}={show(setting.value)} would make it another run (it has {was}); "
                f"change only {', '.join(sorted(FREE - {'resume'}))}, or train anew from {run}/weights/last.safetensors"
            )
    place = {"project": str(run.parent), "name": run.name, "resume": str(run)}
    return saved | given | {name: Setting(value) for name, value in place.items()}


def _same(value: Any, saved: Setting | None) -> bool:
    if saved is None:
        return False
    return bool(value == saved.value) or show(value) == show(saved.value)


def find_run(resume: Any, project: str) -> Path:
    """Return the directory that `resume` means: a run, one of its weights files, or true for the latest of `project`.

    Raises:
        ConfigError: no such run.
    """
    if resume is True:
        states = list(Path(project).glob(STATE_PATTERN))
        if not states:
            raise ConfigError(
                f"resume=true: no run with a training state in {show(project)}; name one: resume=runs/train"
            )
        return max(states, key=lambda state: state.stat().st_mtime).parent.parent
    if not isinstance(resume, str):
        raise ConfigError(f"resume={show(resume)}: must be the directory of a run, or true for the latest of project")
    path = Path(resume)
    run = path.parent.parent if path.suffix == ".safetensors" else path
    if not (run / "args.yaml").is_file():
        raise ConfigError(f"resume={show(resume)}: no run there (a run has args.yaml and weights/)")
    return run
