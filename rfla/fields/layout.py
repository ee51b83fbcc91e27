"""Which dimensions of a tensor are rows and columns of a feature map, however it is laid out.

A dimension is a product of parts, slowest first: (B, C, H, W) flattened to (B, C, H W) has a last
dimension of two parts. A part is a number of entries and what they are: `ROWS`, `COLUMNS`, or
`OTHER` (images, channels, heads).
"""

from collections.abc import Sequence

ROWS, COLUMNS, OTHER = "rows", "columns", ""

Part = tuple[int, str]
Dim = tuple[Part, ...]
Layout = tuple[Dim, ...]


def plain(size: int) -> Dim:
    """Return a dimension that is not spatial."""
    return ((size, OTHER),)


def is_spatial(dim: Dim) -> bool:
    """Tell whether entries along this dimension lie at different places of the image."""
    return any(kind for _, kind in dim)


def kind_of(dim: Dim) -> str:
    """Return what a dimension of a single part is; `OTHER` for all else."""
    return dim[0][1] if len(dim) == 1 else OTHER


def reshaped(layout: Layout, sizes: Sequence[int]) -> Layout | None:
    """Return the layout after a view of these sizes; None where it cuts rows or columns."""
    parts = [part for dim in layout for part in dim if part != (1, OTHER)]
    dims: list[Dim] = []
    for size in sizes:
        dim, left = [], size
        while left > 1:
            if not parts:
                return None
            count, kind = parts.pop(0)
            if left % count == 0:
                dim.append((count, kind))
                left //= count
            elif kind == OTHER and count % left == 0:
                dim.append((left, OTHER))
                parts.insert(0, (count // left, OTHER))
                left = 1
            else:
                return None
        dims.append(tuple(dim) or plain(1))
    return None if parts else tuple(dims)


def broadcast(layouts: Sequence[Layout], sizes: Sequence[int]) -> Layout | None:
    """Return the layout of an element-wise operation's result of these sizes.

    None where one input has rows, say, in the place of another's columns.
    """
    dims = []
    for place, size in enumerate(reversed(sizes)):
        found = {
            layout[-1 - place]
            for layout in layouts
            if place < len(layout) and is_spatial(layout[-1 - place])
        }
        if len(found) > 1:
            return None
        dims.append(found.pop() if found else plain(size))
    return tuple(reversed(dims))
