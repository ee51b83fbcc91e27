"""Where the tiles of a large picture lie.

The last tile of a row or column is shifted inwards, so that every tile has full size and none
repeats another; a picture smaller than a tile is one tile of its own size.
"""

from operator import index

import numpy as np
from numpy.typing import NDArray

from rfla.errors import ConfigError

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in px of the picture."""


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side.

    Every `tile - overlap` px, the last one shifted inwards.

    >>> tile_starts(2000, 800, 200)
    [0, 600, 1200]
    >>> tile_starts(1500, 800, 200)
    [0, 600, 700]
    >>> tile_starts(500, 800, 200)
    [0]
    """
    if length <= tile:
        return [0]
    last = length - tile
    return [*range(0, last, tile - overlap), last]


def plan_tiles(height: int, width: int, tile: int, overlap: int) -> NDArray[np.int64]:
    """Cover a scene with square tiles.

    Args:
        height: Of the scene, px.
        width: Of the scene, px.
        tile: Side of a tile, px. A scene that is smaller on a side has tiles of its own size there.
        overlap: How much two neighbours share, px; the last of a row or column may share more.

    Returns:
        (M, 4) int64 x1, y1, x2, y2 px, row by row.

    Raises:
        ConfigError: A size below 1 px or no whole number, or an overlap that is not below the
            tile's side.
    """
    try:
        height, width, tile, overlap = map(index, (height, width, tile, overlap))
    except TypeError:
        raise ConfigError(
            f"height={height}, width={width}, tile={tile}, overlap={overlap}: must be whole numbers"
        ) from None
    if min(height, width, tile) < 1:
        raise ConfigError(
            f"a scene of {width} x {height} px in tiles of {tile} px: sizes start at 1"
        )
    if not 0 <= overlap < tile:
        raise ConfigError(f"overlap={overlap}: must be from 0 to {tile - 1}, below the tile's side")
    x1, y1 = np.meshgrid(tile_starts(width, tile, overlap), tile_starts(height, tile, overlap))
    corners = [x1, y1, np.minimum(x1 + tile, width), np.minimum(y1 + tile, height)]
    return np.stack(corners, axis=-1).reshape(-1, 4).astype(np.int64)
