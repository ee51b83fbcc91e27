"""`rfla benchmark`: the forms of a network side by side, on one data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfla.cfg import load_config, model_part
from rfla.cfg.verbs import BenchmarkOptions, ExportOptions, check_out
from rfla.engine.device import select_device
from rfla.engine.model_source import SourceModel, load_trained
from rfla.errors import ConfigError, did_you_mean
from rfla.export.accuracy import Figures, Judge, table
from rfla.export.extra import require
from rfla.export.forms import (
    FORMS,
    check_data,
    exported_bytes,
    exported_model,
    quantized_bytes,
    refuse_impossible,
)
from rfla.files import write_result

VARIANTS: dict[str, dict[str, Any]] = {
    "torch": {},
    "onnx": {},
    "onnx-half": {"half": True},
    "onnx-int8": {"int8": True},
    "torch_export": {"format": "torch_export"},
    "torchscript": {"format": "torchscript"},
}
"""What is compared, and how each differs from the options of an export."""


def benchmark(options: BenchmarkOptions, say: Callable[[str], None]) -> None:
    """Compare as `rfla benchmark` does.

    Args:
        options: `model` and `data` are needed.
        say: is given the table, for the user.

    Raises:
        RflaError: any error that the user can fix, in one line.
    """
    for name in options.formats:
        if name not in VARIANTS:
            hint = did_you_mean(name, VARIANTS)
            raise ConfigError(f"formats={name}: one of {', '.join(VARIANTS)}{hint}")
    if options.out is not None:
        check_out(options.out, options.overwrite, ".json")
    exports = {name: _options(name, options) for name in options.formats}
    for own in exports.values():
        for library in FORMS[own.format].libraries:
            require(library)
        check_data(own)
    keys = ("model", "data", "split", "imgsz", "batch", "fraction")
    given = {key: value for key in keys if (value := getattr(options, key)) is not None}
    cfg = load_config(given | {"workers": 0}, mode="val")
    judge = Judge(cfg, select_device(options.device))
    model = load_trained(str(options.model), model_part(judge.cfg))
    rows, missing = [], []
    for name, own in exports.items():
        try:
            refuse_impossible(own, model)
        except ConfigError as error:
            missing.append(f"{name}: left out: {error}")
            continue
        rows.append(_row(name, own, model, judge))
    say("\n".join([*([table(rows)] if rows else []), *missing]))
    if options.out is not None:
        content = [row._asdict() for row in rows]
        write_result(options.out, json.dumps(content, indent=2))


def _options(name: str, options: BenchmarkOptions) -> ExportOptions:
    return ExportOptions(
        model=options.model,
        data=options.data,
        split=options.split,
        imgsz=options.imgsz,
        calibration_split=options.calibration_split,
        **VARIANTS[name],
    )


def _row(name: str, own: ExportOptions, model: SourceModel, judge: Judge) -> Figures:
    """Build one form, and run it over the split."""
    if name == "torch":
        return judge(name, Path(str(own.model)).stat().st_size / 1e6, model)
    content = exported_bytes(own, model)
    if own.int8:
        content = quantized_bytes(own, model, content)
    return judge(name, len(content) / 1e6, exported_model(own, model, content, name, judge.device))
