"""Where the tiles of a large picture lie.

Windows are x1, y1, x2, y2 in px of the picture. The last tile of a row or column is shifted
inwards, so that every tile has full size and none repeats another; a picture smaller than a tile is
one tile of its own size.
"""

Window = tuple[int, int, int, int]


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


def plan_windows(width: int, height: int, tile: int, overlap: int) -> list[Window]:
    """Return the windows of a scene, row by row."""
    return [
        (x, y, min(x + tile, width), min(y + tile, height))
        for y in tile_starts(height, tile, overlap)
        for x in tile_starts(width, tile, overlap)
    ]
