"""A network cut for detection: what `torchvision_networks.py` and `timm_networks.py` make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from rfla.errors import ConfigError
from rfla.models.backbones.pretrained import Pretrained

COARSEST = 32  # px between the cells of C5
NEEDED = (8, 16, COARSEST)


@dataclass(frozen=True)
class Body:
    """A network without its classifier.

    Attributes:
        net: (B, 3, H, W) to one map for each stride, finest first.
        ends: name of the module of `net` that makes each map; None where no single one does.
        channels: of each map.
        strides: px between the cells of each map.
        pretrained: finds the library's own weights.
        channels_last: maps are (B, H, W, D).
    """

    net: nn.Module
    ends: Sequence[str | None]
    channels: Sequence[int]
    strides: Sequence[int]
    pretrained: Callable[[], Pretrained]
    channels_last: bool = False


def last_of_each_stride(name: str, strides: Sequence[int]) -> list[int]:
    """Which of a network's maps make its pyramid: the last of each stride from 2 to 32.

    Args:
        name: for messages.
        strides: of all maps, in the order in which they are computed.

    Raises:
        ConfigError: strides 8, 16 and 32 are not among them.
    """
    last = {stride: index for index, stride in enumerate(strides)}
    if not set(NEEDED) <= last.keys():
        found = ", ".join(map(str, dict.fromkeys(strides)))
        raise ConfigError(
            f"backbone.name={name}: gives no pyramid: its maps have the strides {found}, and "
            f"{', '.join(map(str, NEEDED))} px are needed, with 4 for P2"
        )
    wanted = [stride for stride in (2, 4, *NEEDED) if stride in last]
    return [last[stride] for stride in wanted]
