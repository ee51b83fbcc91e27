"""ImageNet weights by torchvision, where they can be had, and the pixels that they were made for.

torchvision trained its ResNets on RGB with ImageNet mean and std. For a network that wants BGR with
the mean taken off, the order and the scale are folded into its first convolution, which computes
the same then. The stride place of the Caffe style cannot be folded: those weights adapt as they
learn.
"""

import socket
import ssl
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from urllib.error import HTTPError, URLError

import torch
from torch import Tensor, nn

IMAGENET_STD = (58.395, 57.12, 57.375)  # of pixels from 0 to 255, RGB
CONNECT_SECONDS = 15.0


class Pixels(NamedTuple):
    """What the values of an image are divided by, in the order of its channels.

    Attributes:
        std: of pixels from 0 to 255.
        channels: `rgb` or `bgr`.
    """

    std: Sequence[float] = IMAGENET_STD
    channels: str = "rgb"


IMAGENET = Pixels()
Pretrained = tuple[dict[str, Tensor], Pixels] | None
"""Weights with the pixels that they saw; None where they cannot be had."""


class _Weights(Protocol):
    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...


def imagenet_state(weights: _Weights) -> dict[str, Tensor] | None:
    """State dict of torchvision's weights; None where they cannot be had.

    They come from the torch hub cache, or from the network into it, with the check sum in their
    file name.
    """
    with quick_to_give_up():
        try:
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError):
            return None


@contextmanager
def quick_to_give_up() -> Iterator[None]:
    """Wait for a network for seconds: the libraries wait for ever where one swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def reachable(address: str) -> bool:
    """Whether anything answers at an http(s) address, through a proxy where one is set."""
    with quick_to_give_up():
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD")).close()
        except HTTPError:
            return True  # an answer too
        except URLError as error:
            return isinstance(error.reason, ssl.SSLError)  # other libraries bring certificates
        except OSError:
            return False
    return True


def fold_input_scale(conv: nn.Conv2d, trained_on: Pixels, wanted: Pixels) -> None:
    """Change a first convolution to compute on other pixels what it computed on its own.

    Args:
        conv: (out, 3, k, k), weights in the order of `trained_on`.
        trained_on: what its weights saw.
        wanted: what it will see.
    """
    flipped = trained_on.channels != wanted.channels
    with torch.no_grad():
        before = torch.tensor(trained_on.std[::-1] if flipped else trained_on.std)
        weight = conv.weight.flip(1) if flipped else conv.weight
        conv.weight.copy_(weight * (torch.tensor(wanted.std) / before).view(1, 3, 1, 1))
