"""Official weights: the key names of MMDetection 2.x, mapped to ours.

Our modules carry the official names but for the few differences in `RENAMED`, so that the map is this short table.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from rfla.errors import WeightsError
from rfla.models.weights import misfits

# Official pattern and our replacement, applied in turn.
RENAMED = (
    (r"^bbox_head\.center_prior\.", "center_prior."),
    (r"^bbox_head\.", "head."),  # one-stage head
    (r"^roi_head\.bbox_head\.(?=[a-z])", "roi_head.bbox_head.0."),  # of one stage; a cascade numbers them
    (r"^(neck\.(?:lateral_convs|fpn_convs)\.\d+)\.conv\.", r"\1."),  # the pyramid's convolutions come without a wrapper
    (r"^(head\.(?:cls_convs|reg_convs)\.\d+)\.gn\.", r"\1.norm."),
)
COUNTER = "num_batches_tracked"  # old checkpoints have none, and nothing depends on it


def our_key(official: str) -> str:
    """Name of an official state-dict entry in our detectors."""
    for pattern, replacement in RENAMED:
        official = re.sub(pattern, replacement, official)
    return official


def load_mmdet(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict with official keys; it has to fit in every key and shape.

    Args:
        net: a detector of `build_detector`.
        state_dict: official names, e.g. `bbox_head.conv_cls.weight`.

    Raises:
        WeightsError: names what is missing, unexpected and misshaped, in our names.
    """
    state = {our_key(key): value for key, value in state_dict.items()}
    for key, value in net.state_dict().items():
        if key.endswith(COUNTER):
            state.setdefault(key, value)
    problems = misfits(net, state)
    if problems:
        raise WeightsError(f"the official weights do not fit this model: {problems}")
    net.load_state_dict(state)
