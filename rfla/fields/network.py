"""A network whose fields are asked for: its maps, and its evaluation mode while it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def maps_in(outputs: Any) -> list[Tensor]:
    """Return the maps (B, D, H, W) in whatever a network returns, in order."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.ndim == 4]


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put every part into evaluation mode, and back into its own afterwards.

    In training mode batch norm would tie each place to the whole batch, and learn from it.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
