"""Which tensors of somebody's state dict belong to which of a backbone's.

Libraries wrap the same network in different ways (`features.0.0.weight`, `stages_0.blocks.0...`,
`backbone.layer1...`): names are compared without those wrappings.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

WRAPPERS = ("backbone_", "module_", "model_", "body_", "features_", "trunk_output_")
OF_DETECTOR = "backbone."
COUNTER = "num_batches_tracked"  # of batch norm; old files have none, and it matters to nobody


@dataclass(frozen=True)
class Match:
    """What a state dict has for a backbone.

    Attributes:
        fitting: tensors by the backbone's names.
        missing: names of the backbone that the state dict lacks.
        misshaped: names of the backbone for which it has another shape.
        unused: names of the state dict that the backbone has no use for.
    """

    fitting: dict[str, Tensor]
    missing: Sequence[str]
    misshaped: Sequence[str]
    unused: Sequence[str]


def match(backbone: nn.Module, state: Mapping[str, Tensor], added: Collection[str]) -> Match:
    """Find the tensors of a backbone in a state dict of its library, or of a detector.

    Args:
        backbone: the network.
        state: whose names may be wrapped in others.
        added: parts of the names of tensors that such a state dict has not.
    """
    if any(key.startswith(OF_DETECTOR) for key in state):
        state = {key: state[key] for key in state if key.startswith(OF_DETECTOR)}
    theirs = {_spelling(key): key for key in state}
    fitting, missing, misshaped = {}, [], []
    for key, own in backbone.state_dict().items():
        found = theirs.pop(_spelling(key), None)
        if found is None:
            parts = set(key.split("."))
            missing += [] if parts & {COUNTER, *added} else [key]
        elif state[found].shape != own.shape:
            misshaped.append(key)
        else:
            fitting[key] = state[found]
    return Match(fitting, missing, misshaped, list(theirs.values()))


def _spelling(key: str) -> str:
    """A name without what libraries wrap round it."""
    key = key.replace(".", "_")
    while key.startswith(WRAPPERS):
        key = next(key.removeprefix(each) for each in WRAPPERS if key.startswith(each))
    return key
