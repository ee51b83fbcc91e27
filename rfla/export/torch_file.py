"""A network as a program of torch alone: `torch.export` or TorchScript, without rfla's code.

A file of a stranger may do anything when it is loaded: `torch.export.load` runs a pickle where the
archive asks for it (`torch.load(weights_only=False)`), and TorchScript is code. So rfla writes
these files and opens none but those that it has written itself a moment ago.

Shapes: B images, (H, W) px of the padded batch.
"""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rfla.errors import ConfigError, WeightsError, one_line
from rfla.export.graph import DetectionGraph
from rfla.export.input_shape import InputShape
from rfla.export.metadata import text_entries

Program = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def program_bytes(
    graph: DetectionGraph, shape: InputShape, metadata: Mapping[str, Any], opset: int
) -> bytes:
    """Return a program of `torch.export` (.pt2).

    Args:
        graph: the network.
        shape: of its input.
        metadata: what the file says of itself, in files of its archive.
        opset: of no use here.

    Raises:
        ConfigError: this torch cannot export the graph.
    """
    graph.requires_grad_(False)  # its boxes are numbers for others, not a part of a loss
    free = torch.export.Dim.DYNAMIC
    axes = {name: dict.fromkeys(own, free) for name, own in shape.free_axes().items()}
    written = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(graph, shape.example(), dynamic_shapes=axes, strict=False)
            torch.export.save(program, written, extra_files=text_entries(metadata))
        except RuntimeError as error:
            raise _refusal(error) from None
    return written.getvalue()


def script_bytes(
    graph: DetectionGraph, shape: InputShape, metadata: Mapping[str, Any], opset: int
) -> bytes:
    """Return a program of TorchScript, traced; otherwise as `program_bytes`."""
    graph.requires_grad_(False)
    written = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants that are meant to be constant
        try:
            script = torch.jit.trace(  # type: ignore[no-untyped-call]
                graph, shape.example(), check_trace=False
            )
            torch.jit.save(script, written, _extra_files=text_entries(metadata))
        except RuntimeError as error:
            raise _refusal(error) from None
    return written.getvalue()


class TorchRunner:
    """A program of torch on the CPU; a `Runner`.

    Args:
        program: takes images and sizes.
        about: the entry `export` of its metadata.
        name: of the file, for messages.
        device: where to compute; the CPU alone, whose place is part of the program.

    Raises:
        ConfigError: another device.
    """

    def __init__(
        self, program: Program, about: Mapping[str, Any], name: str, device: torch.device
    ) -> None:
        if device.type != "cpu":
            raise ConfigError(f"device={device}: {name} computes on the CPU; use device=cpu")
        self.program, self.name = program, name
        self.shape, self.least_side = InputShape.of(about), int(about["least_side"])
        self.suppresses = bool(about["nms"])

    def run(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """Run the graph, see `Runner`."""
        with torch.no_grad():
            try:
                return list(self.program(images, sizes))
            except (RuntimeError, AssertionError) as error:
                reason = one_line(error)
                raise WeightsError(f"{self.name}: torch: {reason}") from None


def run_program(content: bytes, name: str, device: torch.device) -> TorchRunner:
    """Open what `program_bytes` returned, and nothing else."""
    files = {"export": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(io.BytesIO(content), extra_files=files).module()
    return TorchRunner(program, json.loads(files["export"]), name, device)


def run_script(content: bytes, name: str, device: torch.device) -> TorchRunner:
    """Open what `script_bytes` returned, and nothing else."""
    files = {"export": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(content), _extra_files=files
        )
    return TorchRunner(script, json.loads(files["export"]), name, device)


def _refusal(error: Exception) -> ConfigError:
    reason = one_line(error)
    return ConfigError(f"torch {torch.__version__} cannot export this: {reason}")
