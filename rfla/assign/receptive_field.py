"""Theoretical receptive field (TRF) of every level of a ResNet, as the authors of RFLA count it.

A layer of kernel k on cells that are j input pixels apart widens the field by (k - 1) j px, and a
layer of stride s multiplies j by s. RFLA (ECCV 2022) takes `fraction` times the TRF as the side of
the effective field. They count the backbone alone, and each extra level P6, P7 as subsampling
followed by a 3 x 3 convolution, whatever makes it. `rfla.fields` finds the fields of any network
from the network itself; `docs/method.md` has both.
"""

from collections.abc import Mapping, Sequence

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BASIC_DEPTHS = (18, 34)
FIRST_LEVEL = 2  # of the stages; P1 stands on the stem's first layer


def resnet_receptive_fields(depth: int, levels: Sequence[int]) -> list[int]:
    """Sides in px of the receptive fields of pyramid `levels` (from 1).

    `resnet_receptive_fields(50, range(2, 8))` is `[35, 91, 267, 427, 555, 811]`. A bottleneck
    strides in its 3 x 3 layer. P1, which the authors do not use, counts as the stem's 7 x 7 layer.

    Args:
        depth: 18, 34, 50, 101 or 152.
        levels: Pyramid levels; n has stride 2**n.

    Raises:
        ValueError: Another depth, or a level below 1.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {sorted(BLOCKS)}, not {depth}")
    fields: dict[int, float] = {1: 1 + 6 * 1}  # the stem: 7 x 7 of stride 2
    field = fields[1] + 2 * 2  # and a pooling of 3 x 3
    layers_per_block = 2 if depth in BASIC_DEPTHS else 1  # of 3 x 3
    for level, num_blocks in enumerate(BLOCKS[depth], start=FIRST_LEVEL):
        # The first layer of a later stage is strided, and lies on cells half as large.
        first_cell = 2**level if level == FIRST_LEVEL else 2 ** (level - 1)
        field += 2 * first_cell + 2 * 2**level * (num_blocks * layers_per_block - 1)
        fields[level] = field
    return [int(field) for field in level_receptive_fields(fields, levels)]


def level_receptive_fields(backbone: Mapping[int, float], levels: Sequence[int]) -> list[float]:
    """Sides in px of pyramid levels, from those of the backbone's maps.

    Args:
        backbone: Level of each map of the backbone, and the side of its field.
        levels: Pyramid levels wanted. One above the last map counts as subsampling that map
            followed by a 3 x 3 layer for each level, which adds two cells of it.

    Raises:
        ValueError: a level below the backbone's first.
    """
    last = max(backbone)
    missing = [level for level in levels if level not in backbone and level < last]
    if missing:
        raise ValueError(f"no pyramid level {missing[0]}: levels start at {min(backbone)}")
    above = {level: sum(2 * 2**n for n in range(last + 1, level + 1)) for level in levels}
    return [backbone[min(level, last)] + above[level] for level in levels]
