"""The theoretical receptive field of each output of a network, from the network itself.

The network runs once on an image without pixels (fake tensors), and each operation says which
cells of its input a cell of its output takes: kernel, stride, dilation, padding, pooling, resizing,
sums of branches. So any module is traced, whatever its Python looks like, and the result is exact:
the pixels on which an output can depend.

An operation that mixes the whole map (attention, the global pooling of squeeze-and-excite, group
norm, a mean over the map) makes the field as large as the image: unbounded, with the name of the
operation. So does one that is not known here: no field is ever guessed. The *effective* field of
such a network is finite; `measure.py` finds it.

Shapes: (H, W) px of the image, N cells of a map along one axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rfla.errors import one_line
from rfla.fields.axis import Axis
from rfla.fields.layout import COLUMNS, ROWS, Layout, plain
from rfla.fields.network import evaluation_mode, maps_in
from rfla.fields.operations import CONSTANTS, Map, Seen, Unbounded, follow

SMALLEST_IMAGE = 2**11  # px; it grows until the fields of most cells lie within it
LARGEST_IMAGE = 2**15


class TraceError(ValueError):
    """The network does not run on an image without pixels; its field can only be measured."""


@dataclass(frozen=True)
class TracedField:
    """What the cells of one map see of the image. Numbers are px, of rows and of columns.

    Attributes:
        sides: Height and width of the field; infinite where it is unbounded, 0 where no cell sees
            anything.
        stride: Between neighbouring cells.
        offset: Centre of a cell's field from the upper left corner of the cell (row, column), that
            is from `stride` times its index; nan where it is unbounded.
        unbounded: The operation that sees the whole image; empty where there is none.
    """

    sides: tuple[float, float]
    stride: tuple[float, float]
    offset: tuple[float, float]
    unbounded: str = ""

    @property
    def side(self) -> float:
        """Side of the square of the same area, px."""
        height, width = self.sides
        return height if height == width else math.sqrt(height * width)


def trace_fields(network: nn.Module) -> list[TracedField]:
    """Return the theoretical receptive field of each map that a network returns, in its order.

    Args:
        network: From images (B, 3, H, W) to a map (B, D, H / stride, W / stride), or any
            nest of lists and dicts of maps. Weights and training mode do not matter and stay.

    Raises:
        TraceError: The network fails on an image without pixels.
    """
    side = SMALLEST_IMAGE
    with evaluation_mode(network):
        while True:
            outputs = _run(network, side)
            if side >= LARGEST_IMAGE or all(_is_settled(output) for _, output in outputs):
                return [_field(size, output, side) for size, output in outputs]
            side *= 4


_Output = tuple[tuple[int, int], Seen]  # (rows, columns) of a map, and what it sees


def _run(network: nn.Module, side: int) -> list[_Output]:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    # Fake tensors have a shape and say that they are on the CPU, but have no contents.
    with torch.device("cpu"), FakeTensorMode(), torch.no_grad():
        fakes = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            for name, tensor in tensors.items()
        }
        image = torch.empty(1, 3, side, side, device="cpu")
        tracer = _Tracer(image)
        try:
            with tracer:
                outputs = functional_call(network, fakes, (image,))
        except Exception as error:  # whatever the network's own code raises
            reason = one_line(error)
            raise TraceError(f"{type(error).__name__}: {reason}") from error
    return [
        ((output.shape[-2], output.shape[-1]), tracer.of_output(output))
        for output in maps_in(outputs)
    ]


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what every tensor sees of one image while a network runs on it."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _, channels, height, width = image.shape
        layout: Layout = (plain(1), plain(channels), ((height, ROWS),), ((width, COLUMNS),))
        start = Map(layout, Axis.of_image(height), Axis.of_image(width))
        # by identity; the tensors are kept, so that no other takes the place of one that has gone
        self.known: dict[int, tuple[Tensor, Seen]] = {id(image): (image, start)}
        self.spoiled: Unbounded | None = None

    def of(self, value: Any) -> Seen | None:
        """Return what is known of an argument; None for what does not depend on the image."""
        entry = self.known.get(id(value))
        return entry[1] if entry else None

    def of_output(self, output: Tensor) -> Seen:
        """Return what an output of the network sees."""
        return self.spoiled or self.of(output) or Unbounded("an output that ignores the image")

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and note what its results see."""
        result = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.overloadpacket.__name__ not in CONSTANTS and any(
            id(leaf) in self.known for leaf in tree_leaves(args)
        ):
            found = follow(func, args, self.of, results)
            for tensor, seen in zip(results, found, strict=True):
                # Rare, and it would change the map that this one is a part of.
                if tensor is args[0] and tensor._is_view() and not _alike(self.of(tensor), seen):
                    self.spoiled = Unbounded("a map that is written in parts")
                self.known[id(tensor)] = (tensor, seen)
        return result


def _alike(before: Seen | None, seen: Seen) -> bool:
    """Whether two maps, or None, see the same for the same reason."""
    if isinstance(before, Map) and isinstance(seen, Map):
        return before.rows is seen.rows and before.columns is seen.columns
    return before is seen


def _is_settled(output: Seen) -> bool:
    """Whether borders have no say in what most cells see."""
    if isinstance(output, Unbounded):
        return True
    axes: Sequence[Axis] = (output.rows, output.columns)
    return all(2 * int(axis.inner.sum()) >= len(axis) for axis in axes)


def _field(size: tuple[int, int], output: Seen, side: int) -> TracedField:
    if isinstance(output, Unbounded) or not _is_settled(output):
        reason = output.operation if isinstance(output, Unbounded) else "no border in sight"
        strides = (side / size[0], side / size[1])
        return TracedField((math.inf, math.inf), strides, (math.nan, math.nan), reason)
    height, row_stride, top = _along(output.rows, side)
    width, column_stride, left = _along(output.columns, side)
    return TracedField((height, width), (row_stride, column_stride), (top, left))


def _along(axis: Axis, side: int) -> tuple[float, float, float]:
    """Largest field of an inner cell, the stride, and the mean place of the centres in cells."""
    stride = side / len(axis)
    index = (axis.inner & (axis.first <= axis.last)).nonzero()[0]
    if not len(index):  # a strided transposed convolution can leave cells that see nothing
        return 0.0, stride, math.nan
    first, last = axis.first[index], axis.last[index]
    centres = (first + last + 1) / 2
    if side % len(axis) and len(axis) % side:  # without padding there are fewer cells than strides
        stride = float((centres[-1] - centres[0]) / (index[-1] - index[0]))
    return float((last - first + 1).max()), stride, float((centres - index * stride).mean())
