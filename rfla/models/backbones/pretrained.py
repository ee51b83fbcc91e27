"""ImageNet weights by torchvision, where they can be had.

torchvision trained them on RGB with ImageNet mean and std. For a network that wants BGR with the
mean taken off, the order and the scale are folded into its first convolution, which computes the
same then. The stride place of the Caffe style cannot be folded; those weights adapt in training.
"""

import socket
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.error import URLError

import torch
from torch import Tensor, nn

IMAGENET_STD = (58.395, 57.12, 57.375)  # of pixels from 0 to 255, RGB
CONNECT_SECONDS = 15.0


class _Weights(Protocol):
    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...


def imagenet_state(weights: _Weights) -> dict[str, Tensor] | None:
    """State dict of torchvision's weights without the classifier; None where they cannot be had.

    They come from the torch hub cache, or from the network into it, with the check sum in their
    file name.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(
        CONNECT_SECONDS
    )  # torch.hub waits for ever where a network swallows packets
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError):
        return None
    finally:
        socket.setdefaulttimeout(before)
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def fold_input_scale(conv: nn.Conv2d, std: Sequence[float], channels: str) -> None:
    """Change a first convolution trained on RGB / `IMAGENET_STD` to the network's own input.

    Args:
        conv: (out, 3, k, k), weights in RGB order.
        std: the network's, in the order of `channels`.
        channels: `rgb` or `bgr`.
    """
    with torch.no_grad():
        scale = torch.tensor(std) / torch.tensor(
            IMAGENET_STD if channels == "rgb" else IMAGENET_STD[::-1]
        )
        weight = conv.weight if channels == "rgb" else conv.weight.flip(1)
        conv.weight.copy_(weight * scale.view(1, 3, 1, 1))
