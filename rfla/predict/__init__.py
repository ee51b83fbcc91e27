"""From scenes to detections: what to run on, tiles of large pictures, merging at their seams.

Two functions work on arrays alone and need no network of this package: `plan_tiles` and
`merge_tiles`.
"""

from rfla.data.tiles import plan_tiles
from rfla.predict.merge import merge_tiles

__all__ = ["merge_tiles", "plan_tiles"]
