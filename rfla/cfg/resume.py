"""Earlier runs: the settings of one that is continued, and the latest weights."""

from pathlib import Path
from typing import Any

from rfla.cfg.keys import show
from rfla.cfg.layer_files import settings_layer
from rfla.cfg.layers import Layer, Setting
from rfla.cfg.schema import Config
from rfla.errors import ConfigError
from rfla.files import home_expanded

STATE_PATTERN = "*/weights/last.state.safetensors"

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


def resumed_layer(given: Layer, resume: Any) -> tuple[Layer, frozenset[str]]:
    """Lay what the person gave now over the settings of the run that is continued.

    Returns:
        All settings, with `resume` as the directory of the run, and the keys that were given then
        or now.

    Raises:
        ConfigError: no such run, or a key was given that would make it another run.
    """
    project = (
        given["project"].value if "project" in given else Config.model_fields["project"].default
    )
    run = find_run(resume, str(project))
    saved, names = settings_layer(run / "args.yaml")
    if not {"model", "data"} <= saved.keys():
        raise ConfigError(
            f"{run / 'args.yaml'}: not the settings of a run: no model or no data in it"
        )
    for name, setting in given.items():
        if name not in FREE and not _same(setting.value, saved.get(name)):
            was = show(saved[name].value) if name in saved else "its default"
            raise ConfigError(
                f"resume={run}: {name}={show(setting.value)} would make it another run (it has "
                f"{was}); change only {', '.join(sorted(FREE - {'resume'}))}, or start a new run "
                f"from model={run}/weights/last.safetensors"
            )
    place = {"project": str(run.parent), "name": run.name, "resume": str(run)}
    return saved | given | {name: Setting(value) for name, value in place.items()}, frozenset(
        names | given.keys()
    )


def _same(value: Any, saved: Setting | None) -> bool:
    if saved is None:
        return False
    return bool(value == saved.value) or show(value) == show(saved.value)


def find_run(resume: Any, project: str) -> Path:
    """Return the directory that `resume` means.

    It is given itself, or by one of its weights files, or is the latest of `project` (true).

    Raises:
        ConfigError: no such run.
    """
    if resume is True:
        states = list(Path(project).glob(STATE_PATTERN))
        if not states:
            raise ConfigError(
                f"resume=true: no run with a training state in {show(project)}; "
                "name one: resume=runs/train"
            )
        return max(states, key=lambda state: state.stat().st_mtime).parent.parent
    if not isinstance(resume, str):
        raise ConfigError(
            f"resume={show(resume)}: must be the directory of a run, "
            "or true for the latest of project"
        )
    path = home_expanded(resume)
    run = path.parent.parent if path.suffix == ".safetensors" else path
    if not (run / "args.yaml").is_file():
        raise ConfigError(f"resume={show(resume)}: no run there (a run has args.yaml and weights/)")
    return run


def latest_weights(project: str | Path) -> Path | None:
    """Return the best weights of the run under `project` that wrote weights last, or None."""
    found = list(Path(project).glob("*/weights/best.safetensors")) or list(
        Path(project).glob("*/weights/last.safetensors")
    )
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
