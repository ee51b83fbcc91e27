"""What the result of one operation of a network sees of the image, from what its inputs see.

`RULES` has the operations that move, mix or drop dimensions, by their name in torch's `aten`. An
element-wise one needs no rule: torch tags it as such. A rule returns None where a result may depend
on the whole map.

Shapes: (N, C, H, W) maps; their dimensions may lie in any order, or be merged (`layout.py`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfla.fields.axis import Axis, Flags, Numbers, resized_cells, transposed_cells, window_cells
from rfla.fields.layout import (
    COLUMNS,
    ROWS,
    Dim,
    Layout,
    broadcast,
    is_spatial,
    kind_of,
    plain,
    reshaped,
)


@dataclass(frozen=True, eq=False)
class Map:
    """A tensor that depends on a bounded part of the image at each place.

    Attributes:
        layout: Its dimensions.
        rows: What each row of it sees of the rows of the image.
        columns: The same of columns.
    """

    layout: Layout
    rows: Axis
    columns: Axis


@dataclass(frozen=True, eq=False)
class Unbounded:
    """A tensor that may depend on the whole image, by this operation."""

    operation: str


Seen = Map | Unbounded


@dataclass(frozen=True)
class Call:
    """An operation and one of its results.

    Attributes:
        args: Arguments by position.
        known: The maps among them; None in the place of weights and numbers.
        maps: All maps, those in lists too.
        shape: Of the result.
    """

    args: Sequence[Any]
    known: Sequence[Map | None]
    maps: Sequence[Map]
    shape: Sequence[int]


def follow(
    func: Any, args: Sequence[Any], of: Callable[[Any], Seen | None], results: Sequence[Tensor]
) -> list[Seen]:
    """Return what each result of an operation sees.

    Args:
        func: The operation.
        args: Its arguments by position.
        of: What is known of an argument; None for weights, numbers and lists.
        results: The tensors that it returned.
    """
    flat = [part for arg in args for part in (arg if isinstance(arg, list | tuple) else [arg])]
    seen = [one for one in map(of, flat) if one is not None]
    unbounded = next((one for one in seen if isinstance(one, Unbounded)), None)
    if unbounded is not None:
        return [unbounded] * len(results)
    maps = [one for one in seen if isinstance(one, Map)]
    known = [one if isinstance(one, Map) else None for one in map(of, args)]
    name = func.overloadpacket.__name__
    rule = RULES.get(name, RULES.get(name.removesuffix("_")))  # relu_ is relu in place
    if rule is None and torch.Tag.pointwise in func.tags:
        rule = elementwise
    found: list[Seen] = []
    for result in results:
        own = None if rule is None else rule(Call(args, known, maps, result.shape))
        found.append(own or Unbounded(WORDS.get(name, name.strip("_"))))
    return found


def elementwise(call: Call) -> Map | None:
    """Several maps that see the same places of the image."""
    return joined([one.layout for one in call.maps], call)


def joined(layouts: Sequence[Layout], call: Call) -> Map | None:
    """All maps of a call, laid out so, one on the other."""
    layout, maps = broadcast(layouts, call.shape), call.maps
    if layout is None or len({(len(one.rows), len(one.columns)) for one in maps}) != 1:
        return None
    rows, columns = maps[0].rows, maps[0].columns
    for one in maps[1:]:
        rows, columns = rows.join(one.rows), columns.join(one.columns)
    return Map(layout, rows, columns)


def first(call: Call) -> Map | None:
    """The result sees what the first argument sees, place by place."""
    return call.known[0]


def length(dim: Dim) -> int:
    """Entries along a dimension."""
    return math.prod(count for count, _ in dim)


def relaid(source: Map, layout: Layout | None) -> Map | None:
    """The same map with its dimensions in another order or form."""
    return None if layout is None else Map(layout, source.rows, source.columns)


def batch_norm(call: Call) -> Map | None:
    """With stored statistics each place is scaled alone; with its own, the whole map counts."""
    return None if call.args[5] else call.known[0]


def sliding(
    call: Call, take: Callable[[int, int, int], tuple[Numbers, Flags | None]]
) -> Map | None:
    """A map (..., H, W) whose cells are made from several of the map before.

    Args:
        call: The operation on its first argument.
        take: From the axis (0 rows, 1 columns), its cells after and before, to the arguments of
            `Axis.take`.
    """
    source = call.known[0]
    if source is None or [kind_of(dim) for dim in source.layout[-2:]] != [ROWS, COLUMNS]:
        return None
    if any(is_spatial(dim) for dim in source.layout[:-2]) or len(call.maps) > 1:
        return None
    height, width = call.shape[-2:]
    rows = source.rows.take(*take(0, height, len(source.rows)))
    columns = source.columns.take(*take(1, width, len(source.columns)))
    others = tuple(plain(size) for size in call.shape[:-2])
    return Map((*others, ((height, ROWS),), ((width, COLUMNS),)), rows, columns)


def convolution(call: Call) -> Map | None:
    """Plain, strided, dilated, grouped or transposed."""
    _, weight, _, stride, padding, dilation, transposed = call.args[:7]

    def take(axis: int, size: int, before: int) -> tuple[Numbers, Flags | None]:
        numbers = (_at(stride, axis), _at(padding, axis), _at(dilation, axis))
        if transposed:
            return transposed_cells(size, weight.shape[2 + axis], *numbers)
        return window_cells(size, weight.shape[2 + axis], *numbers), None

    return sliding(call, take)


def pooling(call: Call) -> Map | None:
    """Maximum or mean under a window; only the maximum has a dilation in the place of its own."""
    kernel = call.args[1]
    stride = call.args[2] if len(call.args) > 2 and call.args[2] else kernel
    padding = call.args[3] if len(call.args) > 3 else 0
    dilation = call.args[4] if len(call.args) > 4 and not isinstance(call.args[4], bool) else 1

    def take(axis: int, size: int, before: int) -> tuple[Numbers, None]:
        numbers = (_at(part, axis) for part in (kernel, stride, padding, dilation))
        return window_cells(size, *numbers), None

    return sliding(call, take)


def resizing(taps: int) -> Callable[[Call], Map | None]:
    """Nearest (1 tap), linear (2) or cubic (4) interpolation to another size."""

    def rule(call: Call) -> Map | None:
        corners = taps > 1 and bool(call.args[2])
        return sliding(
            call, lambda axis, size, before: (resized_cells(size, before, taps, corners), None)
        )

    return rule


def moved(source: Map | None, dim: int, cells: Numbers) -> Map | None:
    """A map that has these cells of a dimension in its place; outside of it is padding."""
    if source is None:
        return None
    dim %= len(source.layout)
    kind = kind_of(source.layout[dim])
    if is_spatial(source.layout[dim]) and not kind:  # rows and columns merged
        return None
    layout = (*source.layout[:dim], ((len(cells), kind),), *source.layout[dim + 1 :])
    rows = source.rows.take(cells[:, None]) if kind == ROWS else source.rows
    columns = source.columns.take(cells[:, None]) if kind == COLUMNS else source.columns
    return Map(layout, rows, columns)


def padding(call: Call) -> Map | None:
    """Constant, mirrored or repeated borders: the next window hangs over them in any case."""
    found, pads = call.known[0], call.args[1]
    for place in range(len(pads) // 2):
        dim = len(call.shape) - 1 - place
        if pads[2 * place] or pads[2 * place + 1]:
            cells = np.arange(call.shape[dim]) - pads[2 * place]
            found = moved(found, dim, cells)
    return found


def slicing(call: Call) -> Map | None:
    """Every `step`-th entry of a dimension from `start` on."""
    arguments = [*call.args, *(None, 0, 0, None, 1)[len(call.args) :]]
    source, dim, start, step = call.known[0], arguments[1], arguments[2], arguments[4]
    before, size = call.args[0].shape[dim], call.shape[dim]
    if size == before:
        return source
    start = max(start + before, 0) if (start or 0) < 0 else (start or 0)
    return moved(source, dim, start + np.arange(size) * step)


def dropping(call: Call) -> Map | None:
    """One entry of a dimension, or each of them on its own (`select`, `unbind`)."""
    return without(call, [call.args[1] if len(call.args) > 1 else 0])


def reducing(call: Call) -> Map | None:
    """Mean, sum or maximum over some dimensions."""
    dims = call.args[1] if len(call.args) > 1 else None
    return None if dims is None else without(call, dims if isinstance(dims, list) else [dims])


def without(call: Call, dims: Sequence[int]) -> Map | None:
    """The map without these dimensions, or with one entry along each where they are kept."""
    source = call.known[0]
    if source is None or not dims or any(is_spatial(source.layout[dim]) for dim in dims):
        return None
    gone = {dim % len(source.layout) for dim in dims}
    kept = [plain(1)] if len(call.shape) == len(source.layout) else []
    layout = [
        dim for place, old in enumerate(source.layout) for dim in (kept if place in gone else [old])
    ]
    return relaid(source, tuple(layout))


def mixing(call: Call) -> Map | None:
    """An operation along one dimension that leaves its size (`softmax`)."""
    source = call.known[0]
    return None if source is None or is_spatial(source.layout[call.args[1]]) else source


def layer_norm(call: Call) -> Map | None:
    """Each place alone where the last dimensions are channels."""
    source = call.known[0]
    normalized = source.layout[-len(call.args[1]) :] if source else ()
    return None if any(map(is_spatial, normalized)) else source


def fitting(call: Call) -> Map | None:
    """Pieces of channels, or maps with their channels one after the other (`split`, `cat`)."""
    layouts = []
    for one in call.maps:
        layout = tuple(
            dim if length(dim) == size else plain(size)
            for dim, size in zip(one.layout, call.shape, strict=True)
        )
        cut = [is_spatial(old) and old != new for old, new in zip(one.layout, layout, strict=True)]
        if any(cut):
            return None
        layouts.append(layout)
    return joined(layouts, call)


def permuting(call: Call) -> Map | None:
    """Dimensions in another order (`permute`, `transpose`, `t`)."""
    source = call.known[0]
    if source is None:
        return None
    order = list(range(len(source.layout)))
    if len(call.args) == 2:
        order = [dim % len(order) for dim in call.args[1]]
    else:
        a, b = call.args[1:] or (0, -1)
        order[a], order[b] = order[b], order[a]
    return relaid(source, tuple(source.layout[dim] for dim in order))


def viewing(call: Call) -> Map | None:
    """Dimensions merged, split, added or left out (`view`, `unsqueeze`, `squeeze`)."""
    source = call.known[0]
    return None if source is None else relaid(source, reshaped(source.layout, call.shape))


def expanding(call: Call) -> Map | None:
    """Dimensions of one entry repeated."""
    source = call.known[0]
    return None if source is None else relaid(source, broadcast([source.layout], call.shape))


def multiplying(call: Call) -> Map | None:
    """A map times weights, along its channels; two maps are attention."""
    left, right = call.known[-2:]
    if len(call.maps) != 1:
        return None
    source, contracted = (left, -1) if left is not None else (right, -2)
    if source is None or is_spatial(source.layout[contracted]):
        return None
    *batch, rows, columns = source.layout
    if left is not None:
        return relaid(left, (*batch, rows, plain(call.shape[-1])))
    return relaid(source, (*batch, plain(call.shape[-2]), columns))


def _at(values: Any, axis: int) -> int:
    """The number of an axis, from one for both or one for each."""
    if isinstance(values, list | tuple):
        return int(values[axis if len(values) > 1 else 0])
    return int(values)


RULES: dict[str, Callable[[Call], Map | None]] = {
    "convolution": convolution,
    "max_pool2d_with_indices": pooling,
    "avg_pool2d": pooling,
    "upsample_nearest2d": resizing(1),
    "upsample_bilinear2d": resizing(2),
    "upsample_bicubic2d": resizing(4),
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), padding),
    "slice": slicing,
    **dict.fromkeys(("select", "unbind"), dropping),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std"), reducing),
    **dict.fromkeys(("_softmax", "_log_softmax"), mixing),
    **dict.fromkeys(("split", "split_with_sizes", "glu", "cat"), fitting),
    **dict.fromkeys(("permute", "transpose", "t"), permuting),
    **dict.fromkeys(("view", "_unsafe_view", "unsqueeze", "squeeze"), viewing),
    "expand": expanding,
    **dict.fromkeys(("mm", "addmm", "bmm"), multiplying),
    **dict.fromkeys(("clone", "_to_copy", "detach", "alias", "native_dropout", "hardswish"), first),
    **dict.fromkeys(("_prelu_kernel", "where", "masked_fill"), elementwise),
    "copy_": lambda call: call.known[1] or call.known[0],
}

CONSTANTS = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full"),
}
"""Operations that take a shape from a map, and nothing else."""

WORDS = {
    "mean": "global pooling",
    "amax": "global pooling",
    "_adaptive_avg_pool2d": "adaptive pooling",
    "adaptive_max_pool2d": "adaptive pooling",
    "bmm": "attention",
    "view": "a map cut into windows",
    "_unsafe_view": "a map cut into windows",
    "native_group_norm": "group norm",
    "deform_conv2d": "deformable convolution",
}
"""Operations that see the whole map, as people call them."""
