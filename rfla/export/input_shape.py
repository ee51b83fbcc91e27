"""What an exported graph takes: how many images, of which size, in which type."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

TRACED_SIDE = 256
"""px: side of the images that a graph of free size is traced with. C5 has 8 cells of it, enough for
every convolution of DetectoRS to take the way that larger images take."""


class InputShape(NamedTuple):
    """The input of a graph.

    Attributes:
        batch: images; None: any number.
        side: height and width, px; None: any multiples of 32.
        as_float: float32 pixels, and not uint8.
    """

    batch: int | None = None
    side: int | None = None
    as_float: bool = False

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "InputShape":
        """Read it from the entry `export` of a file's metadata."""
        return cls(about["batch"], about["side"], about["input"] == "float")

    def example(self) -> tuple[Tensor, Tensor]:
        """Images and sizes to trace with."""
        batch, side = self.batch or 2, self.side or TRACED_SIDE
        images = torch.randint(
            0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(0)
        )
        sizes = torch.full((batch, 2), side, dtype=torch.int64)
        return images.to(torch.float32 if self.as_float else torch.uint8), sizes

    def free_axes(self) -> dict[str, dict[int, str]]:
        """Names of the free dimensions of the inputs."""
        batch: dict[int, str] = {} if self.batch else {0: "batch"}
        size: dict[int, str] = {} if self.side else {2: "height", 3: "width"}
        return {"images": batch | size, "image_sizes": batch}
