"""`rfla benchmark`: the forms of a network side by side, on one data set."""

import json
import tempfile
from pathlib import Path

from rfla.cfg import load_config, model_part
from rfla.cfg.verbs import BenchmarkOptions, ExportOptions
from rfla.engine.device import select_device
from rfla.engine.model_source import SourceModel, load_trained
from rfla.errors import ConfigError, did_you_mean
from rfla.export.extra import require
from rfla.export.figures import Figures, Judge, table
from rfla.export.forms import in_int8, written
from rfla.export.session import load_exported
from rfla.files import write_atomically

FORMS = ("torch", "onnx", "onnx-half", "onnx-int8")


def benchmark(options: BenchmarkOptions) -> str:
    """Compare as `rfla benchmark` does; returns a table for the person.

    Args:
        options: `model` and `data` are needed.

    Raises:
        RflaError: anything that the person can mend, in one line.
    """
    for form in options.formats:
        if form not in FORMS:
            hint = did_you_mean(form, FORMS)
            raise ConfigError(f"formats={form}: one of {', '.join(FORMS)}{hint}")
    for library in ("onnx", "onnxruntime"):
        require(library)
    keys = ("model", "data", "split", "imgsz", "batch", "fraction")
    given = {key: value for key in keys if (value := getattr(options, key)) is not None}
    cfg = load_config(given | {"workers": 0}, mode="val")
    judge = Judge(cfg, select_device(options.device))
    rows = [_row(form, options, judge) for form in options.formats]
    if options.out is not None:
        content = [row._asdict() for row in rows]
        write_atomically(options.out, json.dumps(content, indent=2))
    return table(rows)


def _row(form: str, options: BenchmarkOptions, judge: Judge) -> Figures:
    """Build one form, and run it over the split."""
    model = load_trained(str(options.model), model_part(judge.cfg))
    if form == "torch":
        return judge(form, Path(str(options.model)).stat().st_size / 1e6, model)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{form}.onnx")
        path.write_bytes(_content(form, options, model))
        exported = load_exported(path, model.config, judge.device)
        return judge(form, path.stat().st_size / 1e6, exported)


def _content(form: str, options: BenchmarkOptions, model: SourceModel) -> bytes:
    own = ExportOptions(
        model=options.model,
        data=options.data,
        imgsz=options.imgsz,
        half=form == "onnx-half",
        int8=form == "onnx-int8",
        calibration_split=options.calibration_split,
    )
    content = written(own, model)
    return in_int8(own, model, content) if own.int8 else content
