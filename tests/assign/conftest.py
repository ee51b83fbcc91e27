"""The recorded priors and the mapping of the authors' index convention to ours."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rfla.assign import PriorGrid

sys.path.insert(0, str(Path(__file__).parent))  # for `import oracle`

RECEPTIVE_FIELDS = [35, 91, 267, 427, 555, 811]


@pytest.fixture(scope="session")
def recorded_grid():
    """Build the priors that a record describes in words."""

    def build(prior: dict) -> PriorGrid:
        fields = RECEPTIVE_FIELDS[:5] if prior["level"] == "p2" else RECEPTIVE_FIELDS[1:]
        shared = (prior["featmap_sizes"], prior["strides"], fields, prior["fraction"])
        if prior["family"] == "rfgen":
            return PriorGrid.anchors(*shared, ratios=prior["ratios"])
        return PriorGrid.points(*shared)

    return build


@pytest.fixture(scope="session")
def ours():
    """Turn recorded gt_inds (-1 ignored, 0 background, i + 1 box i) into -2, -1, i."""

    def convert(gt_inds: Tensor) -> Tensor:
        index = gt_inds.long()
        return torch.where(index > 0, index - 1, torch.where(index == 0, -1, -2))

    return convert
