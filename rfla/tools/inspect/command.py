"""`rfla inspect`: the data set, and with `model=` what that model's assigner makes of its boxes."""

from collections.abc import Mapping
from typing import Any

from rfla.cfg import Config, load_config
from rfla.cfg.layer_files import trained_size_layer
from rfla.cfg.verbs import InspectOptions
from rfla.errors import for_terminal
from rfla.tools.inspect.data_report import DataReport, Finding
from rfla.tools.inspect.inspection import inspect


def run_inspect(options: InspectOptions, given: Mapping[str, Any]) -> int:
    """Run `rfla inspect` and print what was found.

    Args:
        options: All keys.
        given: Those that were typed, dotted, with their values.

    Returns:
        Exit code: 0 where training is safe.

    Raises:
        RflaError: The data set cannot be found, or there is no such model.
    """
    settings = _settings_to_try(options, given)
    if settings is not None:
        options = options.model_copy(update={"imgsz": settings.imgsz})
    report = inspect(options)
    if settings is not None:
        _add_assignment(report, settings)
    print(for_terminal(report.text()), end="")
    return report.exit_code


def _settings_to_try(options: InspectOptions, given: Mapping[str, Any]) -> Config | None:
    """Return the settings of the model whose assigner is tried on the boxes, or None."""
    if options.model is None:
        return None
    keys = [key for key in given if key == "imgsz" or key.startswith("assigner.")]
    model = {"model": options.model, "data": options.data, "split": options.split or "train"}
    # as the weights were trained, unless another size is typed
    size = {name: setting.value for name, setting in trained_size_layer(options.model).items()}
    return load_config(model | size | {key: given[key] for key in keys})


def _add_assignment(report: DataReport, settings: Config) -> None:
    """Add to an inspection what the assigner does with the boxes, and draw it."""
    # Not before: torch takes seconds to load, and most inspections go without it.
    from rfla.tools.inspect.assignment import advice, assignment_report

    folder = report.pictures[0].parent if report.pictures else None
    picture = folder / f"assignment_{settings.split}.png" if folder is not None else None
    assigned = assignment_report(settings, picture)
    title = f"assignment by model={settings.model} at imgsz={settings.imgsz}"
    report.assignment = f"{title}, split {settings.split}\n{assigned.text()}"
    what = advice(settings, assigned)
    report.add(settings.split, Finding("warning", what, len(assigned.without_positive)))
    if picture is not None and picture.exists():
        report.pictures.append(picture)
