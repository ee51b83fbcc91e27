"""Theoretical receptive field (TRF) of every pyramid level, from the layers on the path to it.

A layer of kernel k and dilation d on cells that are j input pixels apart widens the field by
(k - 1) d j px, and a layer of stride s multiplies j by s. RFLA (ECCV 2022) takes `fraction` times
the TRF as the side of the effective field.

`resnet_receptive_fields` repeats the authors' counting: the backbone alone, and the extra levels
P6, P7 as subsampling followed by a 3 x 3 convolution. `full_receptive_fields` counts the whole
network; `docs/method.md` has both.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BASIC_DEPTHS = (18, 34)
FIRST_LEVEL, LAST_BACKBONE_LEVEL = 2, 5


@dataclass(frozen=True)
class Layer:
    """One layer on the path: square kernel, stride and dilation, in cells of its input."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    level: int | None = None
    """The pyramid level whose field is complete after this layer."""


def theoretical_receptive_fields(path: Iterable[Layer]) -> dict[int, int]:
    """Side of the theoretical receptive field in px, for every level marked on the path.

    Args:
        path: Layers from the image to the deepest level; 1 x 1 layers of stride 1 may be left out.

    Returns:
        Level number -> side in px.
    """
    field, jump, fields = 1, 1, {}
    for layer in path:
        field += (layer.kernel - 1) * layer.dilation * jump
        jump *= layer.stride
        if layer.level is not None:
            fields[layer.level] = field
    return fields


def resnet_layers(depth: int, style: str = "pytorch") -> Iterator[Layer]:
    """Yield the widest path through a ResNet to C5: the 3 x 3 layers of all blocks.

    Args:
        depth: 18, 34, 50 or 101.
        style: `"pytorch"`: the stride is on the 3 x 3 layer of a bottleneck; `"caffe"`: on the 1 x
            1 before it.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {sorted(BLOCKS)}, not {depth}")
    yield Layer(7, stride=2)
    yield Layer(3, stride=2)
    layers_per_block = 2 if depth in BASIC_DEPTHS else 1  # of 3 x 3
    for stage, num_blocks in enumerate(BLOCKS[depth]):
        strided = Layer(3, stride=2 if stage else 1)
        if style == "caffe" and depth not in BASIC_DEPTHS and stage:
            yield Layer(1, stride=2)
            strided = Layer(3)
        layers = [strided] + [Layer(3)] * (num_blocks * layers_per_block - 1)
        yield from layers[:-1]
        yield Layer(layers[-1].kernel, layers[-1].stride, level=stage + FIRST_LEVEL)


def with_extra_levels(path: Iterable[Layer], last_level: int) -> Iterator[Layer]:
    """Yield a backbone's path, then the levels above its last, as the authors count them.

    Each of P6, P7, ... counts as subsampling followed by a 3 x 3 layer.

    Args:
        path: Layers of the backbone, its levels marked.
        last_level: Deepest pyramid level wanted.
    """
    level = FIRST_LEVEL
    for layer in path:
        level = layer.level or level
        yield layer
    for extra in range(level + 1, last_level + 1):
        yield Layer(1, stride=2)
        yield Layer(3, level=extra)


def resnet_receptive_fields(depth: int, levels: Sequence[int], style: str = "pytorch") -> list[int]:
    """Sides in px of the receptive fields of pyramid `levels` (from 2), by the authors' counting.

    `resnet_receptive_fields(50, range(2, 8))` is `[35, 91, 267, 427, 555, 811]`.
    """
    if not levels:
        return []
    fields = theoretical_receptive_fields(
        with_extra_levels(resnet_layers(depth, style), max(levels))
    )
    missing = [level for level in levels if level not in fields]
    if missing:
        raise ValueError(f"no pyramid level {missing[0]}: levels start at {FIRST_LEVEL}")
    return [fields[level] for level in levels]


def full_receptive_fields(
    depth: int, levels: Sequence[int], head_depth: int = 4, style: str = "pytorch"
) -> list[int]:
    """Largest sides in px over all paths to the predictions.

    These count what the authors leave out: the top-down path of the pyramid (nearest up-sampling),
    its 3 x 3 output layer, P6 and P7 as 3 x 3 layers of stride 2 on P5, and the 3 x 3 layers of the
    head with its predicting one.

    Args:
        depth: 18, 34, 50 or 101.
        levels: Pyramid levels, from 2.
        head_depth: 3 x 3 layers of the head before the predicting layer.
        style: As in `resnet_layers`.
    """
    backbone = theoretical_receptive_fields(resnet_layers(depth, style))

    def pyramid(level: int, window: int) -> int:
        """Side of what `window` neighbouring cells of the pyramid output see."""
        if level > LAST_BACKBONE_LEVEL:
            return pyramid(level - 1, 2 * window + 1)  # a 3 x 3 layer of stride 2
        span = window + 2  # the 3 x 3 output layer
        fields = []
        for source in range(level, LAST_BACKBONE_LEVEL + 1):
            # `span` cells lie in at most so many cells of this source, coarser by up-sampling.
            cells = -(-(span - 1) // (1 << (source - level))) + 1
            fields.append(backbone[source] + (cells - 1) * (1 << source))
        return max(fields)

    return [pyramid(level, 2 * (head_depth + 1) + 1) for level in levels]
