"""Tiny-object detection with Gaussian receptive field based label assignment (RFLA, ECCV 2022)."""

import os
from typing import TYPE_CHECKING, Any

from rfla.version import __version__

# albumentations asks a package index for its newest version whenever it is imported; a detector
# should not phone home.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Where a process of a run dies, torch's C++ part warns with its call stack: rfla says it in a line.
if "WORLD_SIZE" in os.environ:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

if TYPE_CHECKING:
    from rfla.api import RFLA

__all__ = ["RFLA", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `RFLA` when it is first asked for, so that `rfla help` does not wait for torch."""
    if name == "RFLA":
        from rfla.api import RFLA

        return RFLA
    raise AttributeError(f"module 'rfla' has no attribute '{name}'")
