"""Group norm and ReLU for GPUs in triton: a map is read twice and written once, each way.

Shapes: a map of (B, C, H, W) in `channels_last` is (B, N, C) in memory, N = H W rows; G groups of
P = C / G channels. `sums` is (B, K, 2, C), those of K chunks of rows; `factors` (B, 2, C).

With m and r the mean and the inverse deviation of a group, w and b the weight and the bias of a
channel, y = max(a x + s, 0) where a = w r and s = b - a m. With g the gradient of y where y > 0 and
0 elsewhere, z = (x - m) r and means over a group, dx = r (w g - mean(w g) - z mean(w g z)), which
is a g + c x + d: another pair of factors.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # numbers that a program holds at a time
STEPS = 32  # tiles that it sums


@triton.jit
def program_of(count):
    """Index of the image, and which of `count` programs for it this is.

    All lie on one axis: a GPU has 65,535 programs at most on the others.
    """
    program = tl.program_id(0).to(tl.int64)
    return program // count, program % count


@triton.jit
def tile_of(image, tile, rows, C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Places in memory of the numbers of a tile, (ROWS, COLUMNS), and which of them there are."""
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < C)[None, :]
    return (image * rows + row)[:, None] * C + column[None, :], inside


@triton.jit
def load_pair(pairs_ptr, image, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Two factors of each channel of an image, (1, COLUMNS)."""
    column = tl.arange(0, COLUMNS)
    at = pairs_ptr + image * 2 * C + column
    first = tl.load(at, column < C, other=0.0)
    second = tl.load(at + C, column < C, other=0.0)
    return first[None, :], second[None, :]


@triton.jit
def load_map_and_gradient(x_ptr, g_ptr, at, inside, scale, shift):
    """x, and g: the gradient where y > 0."""
    x = tl.load(x_ptr + at, inside, other=0.0).to(tl.float32)
    g = tl.load(g_ptr + at, inside, other=0.0).to(tl.float32)
    return x, tl.where(x * scale + shift > 0, g, 0.0)


@triton.jit
def store_sums(sums_ptr, first, second, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the two sums of the chunk of this program, each (ROWS, COLUMNS) yet."""
    column = tl.arange(0, COLUMNS)
    out = sums_ptr + tl.program_id(0).to(tl.int64) * 2 * C + column
    tl.store(out, tl.sum(first, 0), column < C)
    tl.store(out + C, tl.sum(second, 0), column < C)


@triton.jit
def channels_of(C: tl.constexpr, GROUPS: tl.constexpr, G_: tl.constexpr, P_: tl.constexpr):
    """Channel at each place of each group, (G_, P_), and which of them there are."""
    PER: tl.constexpr = C // GROUPS
    group, place = tl.arange(0, G_), tl.arange(0, P_)
    inside = (group < GROUPS)[:, None] & (place < PER)[None, :]
    return group[:, None] * PER + place[None, :], inside


@triton.jit
def sum_map(x_ptr, sums_ptr, rows, chunks, C: tl.constexpr, COLUMNS: tl.constexpr,
            ROWS: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
    """Sum x and x squared over the rows of a chunk."""
    image, chunk = program_of(chunks)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    square = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        at, inside = tile_of(image, chunk * STEPS + step, rows, C, COLUMNS, ROWS)
        x = tl.load(x_ptr + at, inside, other=0.0).to(tl.float32)
        total += x
        square += x * x
    store_sums(sums_ptr, total, square, C, COLUMNS)


@triton.jit
def sum_gradient(x_ptr, g_ptr, factors_ptr, sums_ptr, rows, chunks, C: tl.constexpr,
                 COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
    """Sum g and g x over the rows of a chunk."""
    image, chunk = program_of(chunks)
    scale, shift = load_pair(factors_ptr, image, C, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        at, inside = tile_of(image, chunk * STEPS + step, rows, C, COLUMNS, ROWS)
        x, g = load_map_and_gradient(x_ptr, g_ptr, at, inside, scale, shift)
        total += g
        product += g * x
    store_sums(sums_ptr, total, product, C, COLUMNS)


@triton.jit
def sums_of_image(sums_ptr, image, chunks, channel, inside, C: tl.constexpr):
    """Add the chunks of an image up: two sums for each channel."""
    first = tl.zeros(channel.shape, tl.float32)
    second = tl.zeros(channel.shape, tl.float32)
    for chunk in range(chunks):
        at = sums_ptr + (image * chunks + chunk) * 2 * C + channel
        first += tl.load(at, inside, other=0.0)
        second += tl.load(at + C, inside, other=0.0)
    return first, second


@triton.jit
def factors_of_map(sums_ptr, weight_ptr, bias_ptr, factors_ptr, moments_ptr, chunks, rows, eps,
                   C: tl.constexpr, GROUPS: tl.constexpr, G_: tl.constexpr,
                   P_: tl.constexpr):  # fmt: skip
    """Write a and s of an image from its sums, and m and r of its groups to `moments` (B, 2, G)."""
    image = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, G_)
    channel, inside = channels_of(C, GROUPS, G_, P_)
    total, square = sums_of_image(sums_ptr, image, chunks, channel, inside, C)
    count = rows * (C // GROUPS)
    mean = tl.sum(total, 1) / count
    variance = tl.maximum(tl.sum(square, 1) / count - mean * mean, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    weight = tl.load(weight_ptr + channel, inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, inside, other=0.0).to(tl.float32)
    scale = weight * inverse[:, None]
    tl.store(factors_ptr + image * 2 * C + channel, scale, inside)
    tl.store(factors_ptr + image * 2 * C + C + channel, bias - scale * mean[:, None], inside)
    tl.store(moments_ptr + image * 2 * GROUPS + group, mean, group < GROUPS)
    tl.store(moments_ptr + image * 2 * GROUPS + GROUPS + group, inverse, group < GROUPS)


@triton.jit
def factors_of_gradient(sums_ptr, weight_ptr, moments_ptr, factors_ptr, learned_ptr, chunks, rows,
                        C: tl.constexpr, GROUPS: tl.constexpr, G_: tl.constexpr,
                        P_: tl.constexpr):  # fmt: skip
    """Write c and d of an image, and the gradients of w and b by this image, (B, 2, C)."""
    image = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, G_)
    channel, inside = channels_of(C, GROUPS, G_, P_)
    total, product = sums_of_image(sums_ptr, image, chunks, channel, inside, C)
    moments = moments_ptr + image * 2 * GROUPS + group
    mean = tl.load(moments, group < GROUPS, other=0.0)
    inverse = tl.load(moments + GROUPS, group < GROUPS, other=0.0)
    weight = tl.load(weight_ptr + channel, inside, other=0.0).to(tl.float32)
    normal = (product - mean[:, None] * total) * inverse[:, None]  # sum of g z
    count = rows * (C // GROUPS)
    along = -tl.sum(weight * normal, 1) / count * inverse * inverse  # c
    offset = -tl.sum(weight * total, 1) / count * inverse - along * mean  # d
    wide = tl.zeros(channel.shape, tl.float32)
    tl.store(factors_ptr + image * 2 * C + channel, along[:, None] + wide, inside)
    tl.store(factors_ptr + image * 2 * C + C + channel, offset[:, None] + wide, inside)
    tl.store(learned_ptr + image * 2 * C + channel, normal, inside)
    tl.store(learned_ptr + image * 2 * C + C + channel, total, inside)


@triton.jit
def apply_to_map(x_ptr, factors_ptr, y_ptr, rows, C: tl.constexpr, COLUMNS: tl.constexpr,
                 ROWS: tl.constexpr):  # fmt: skip
    """Write y = max(a x + s, 0)."""
    image, tile = program_of(tl.cdiv(rows, ROWS))
    at, inside = tile_of(image, tile, rows, C, COLUMNS, ROWS)
    scale, shift = load_pair(factors_ptr, image, C, COLUMNS)
    y = tl.load(x_ptr + at, inside, other=0.0).to(tl.float32) * scale + shift
    # `y < 0` and not a maximum: that would make 0 of a NaN, which the trainer must see
    tl.store(y_ptr + at, tl.where(y < 0, 0.0, y), inside)


@triton.jit
def apply_to_gradient(x_ptr, g_ptr, factors_ptr, changes_ptr, dx_ptr, rows, C: tl.constexpr,
                      COLUMNS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Write dx = a g + c x + d."""
    image, tile = program_of(tl.cdiv(rows, ROWS))
    at, inside = tile_of(image, tile, rows, C, COLUMNS, ROWS)
    scale, shift = load_pair(factors_ptr, image, C, COLUMNS)
    along, offset = load_pair(changes_ptr, image, C, COLUMNS)
    x, g = load_map_and_gradient(x_ptr, g_ptr, at, inside, scale, shift)
    tl.store(dx_ptr + at, scale * g + along * x + offset, inside)


class Sizes:
    """How a map is cut into tiles and programs."""

    def __init__(self, features: Tensor, groups: int) -> None:
        self.batch, self.channels, height, width = features.shape
        self.rows, self.device = height * width, features.device
        columns = triton.next_power_of_2(self.channels)
        height_of_tile = max(1, TILE // columns)
        self.chunks = triton.cdiv(self.rows, height_of_tile * STEPS)
        self.tile = {"C": self.channels, "COLUMNS": columns, "ROWS": height_of_tile}
        self.summing = (self.batch * self.chunks,)
        self.writing = (self.batch * triton.cdiv(self.rows, height_of_tile),)
        self.grouped = {
            "C": self.channels,
            "GROUPS": groups,
            "G_": triton.next_power_of_2(groups),
            "P_": triton.next_power_of_2(self.channels // groups),
        }

    def empty(self, *shape: int) -> Tensor:
        """(B, *shape) float32 on the device of the map, not yet written."""
        return torch.empty(self.batch, *shape, dtype=torch.float32, device=self.device)


class GroupNormReLU(torch.autograd.Function):
    """`group_norm_relu` of a map of bfloat16 or float16, by the kernels above."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        """(B, C, H, W) to the same; keeps the map that it is given and nothing of its size."""
        x = features.contiguous(memory_format=torch.channels_last)
        sizes = Sizes(x, groups)
        sums = sizes.empty(sizes.chunks, 2, sizes.channels)
        factors, moments = sizes.empty(2, sizes.channels), sizes.empty(2, groups)
        y = torch.empty_like(x)
        with torch.cuda.device_of(x):
            sum_map[sizes.summing](x, sums, sizes.rows, sizes.chunks, **sizes.tile, STEPS=STEPS)
            factors_of_map[(sizes.batch,)](
                sums, weight, bias, factors, moments, sizes.chunks, sizes.rows, eps, **sizes.grouped
            )
            apply_to_map[sizes.writing](x, factors, y, sizes.rows, **sizes.tile)
        ctx.save_for_backward(x, weight, factors, moments)
        ctx.sizes = sizes
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        """Gradients of the map, the weight and the bias."""
        x, weight, factors, moments = ctx.saved_tensors
        sizes = ctx.sizes
        g = gradients[0].contiguous(memory_format=torch.channels_last)
        sums = sizes.empty(sizes.chunks, 2, sizes.channels)
        changes, learned = torch.empty_like(factors), torch.empty_like(factors)
        dx = torch.empty_like(x)
        with torch.cuda.device_of(x):
            sum_gradient[sizes.summing](
                x, g, factors, sums, sizes.rows, sizes.chunks, **sizes.tile, STEPS=STEPS
            )
            factors_of_gradient[(sizes.batch,)](
                sums, weight, moments, changes, learned, sizes.chunks, sizes.rows, **sizes.grouped
            )
            apply_to_gradient[sizes.writing](x, g, factors, changes, dx, sizes.rows, **sizes.tile)
        learned = learned.sum(0)
        return dx, None, learned[0].to(weight.dtype), learned[1].to(weight.dtype), None
