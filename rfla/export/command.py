"""`rfla export`: weights in, a file for other programs out, checked against torch."""

import shlex
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch

from rfla.cfg import load_config, model_part
from rfla.cfg.verbs import ExportOptions, check_out
from rfla.engine.model_source import SourceModel, load_trained
from rfla.errors import ConfigError
from rfla.export.accuracy import Figures, Judge, refuse_loss, table
from rfla.export.deform import check_opset
from rfla.export.extra import require
from rfla.export.forms import (
    FORMS,
    check_data,
    check_parity,
    exported_bytes,
    exported_model,
    quantized_bytes,
    refuse_unsure,
    side_of,
)
from rfla.files import write_result


class Exported(NamedTuple):
    """What an export left behind.

    Attributes:
        path: the file.
        report: how it compares with the network, lines for the user.
    """

    path: Path
    report: str


def export(options: ExportOptions) -> Exported:
    """Export as `rfla export` does.

    Args:
        options: `model` is needed.

    Raises:
        RflaError: any error that the user can fix, in one line; nothing is written then.
    """
    out = _checked(options)
    given = {
        key: value
        for key in ("model", "conf", "iou", "max_det")
        if (value := getattr(options, key)) is not None
    }
    model = load_trained(str(options.model), model_part(load_config(given)))
    check_opset(model.config.detector, options.opset)

    if options.half and not options.force:
        refuse_unsure(options, model)

    started = perf_counter()
    content = exported_bytes(options, model)
    lines = [check_parity(options, model, content, str(out)).line()]
    if options.int8:
        content = quantized_bytes(options, model, content)
    seconds = perf_counter() - started
    if options.data is not None and (options.half or options.int8):
        rows = _cost(options, model, content)
        lines.append(table(rows))
        if not options.force:
            refuse_loss(*rows, options.max_loss)
    write_result(out, content)
    megabytes = len(content) / 1e6
    if not options.dynamic:
        lines.append(
            "dynamic=false pads every image to a square: boxes in others differ from torch's a "
            "little, see docs/export.md"
        )
    lines.append(f"wrote {out}: {megabytes:.1f} MB in {seconds:.0f} s; {_next(options, out)}")
    return Exported(out, "\n".join(lines))


def _next(options: ExportOptions, out: Path) -> str:
    """What to do with the file."""
    if options.format == "onnx":
        return f"opset {options.opset}; try: rfla predict {shlex.quote(f'model={out}')} source=..."
    return "docs/export.md shows how torch runs it"


def _checked(options: ExportOptions) -> Path:
    """Refuse what cannot work before anything is loaded; return the file to write."""
    form = FORMS[options.format]
    for library in form.libraries:
        require(library)
    out = Path(options.out or Path(str(options.model)).with_suffix(form.suffix))
    if out.suffix.lower() != form.suffix:
        raise ConfigError(
            f"out={out}: the name of a file of format={options.format} ends in {form.suffix}"
        )
    if options.half and options.int8:
        raise ConfigError("half=true and int8=true do not go together; choose one")
    if options.format != "onnx":
        for key, given in (("int8", options.int8), ("opset", "opset" in options.model_fields_set)):
            if given:
                raise ConfigError(f"{key}: is for format=onnx, not for format={options.format}")
    if options.dynamic and "batch" in options.model_fields_set:
        raise ConfigError(
            f"batch={options.batch}: is for dynamic=false; this file takes any number of images"
        )
    if options.int8 and options.data is None:
        raise ConfigError(
            "int8=true needs data=: ranges are measured on its images, and it shows what int8 costs"
        )
    check_out(out, options.overwrite)
    check_data(options)
    return out


def _cost(options: ExportOptions, model: SourceModel, content: bytes) -> tuple[Figures, Figures]:
    """The figures of the network in torch and of the file, on the split that is judged."""
    settings = {
        "model": str(options.model),
        "data": options.data,
        "split": options.split,
        "imgsz": side_of(options, model),
        "workers": 0,
        "batch": 1,
    }
    judge = Judge(load_config(settings, mode="val"), torch.device("cpu"))
    megabytes = Path(str(options.model)).stat().st_size / 1e6
    before = judge("torch", megabytes, model)
    name = "half=true" if options.half else "int8=true"
    return before, judge(name, len(content) / 1e6, exported_model(options, model, content, name))
