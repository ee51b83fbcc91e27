"""Label assignment: prior grids, distances, and the rules that match priors to boxes.

Needs torch alone.
"""

from rfla.assign.arguments import BACKGROUND, IGNORED
from rfla.assign.atss import ATSSAssigner
from rfla.assign.distance import DISTANCES, Distance, receptive_field_distance
from rfla.assign.explain import AssignmentReport
from rfla.assign.fcos import PointsAssigner
from rfla.assign.hierarchical import HierarchicalAssigner
from rfla.assign.max_iou import MaxIoUAssigner
from rfla.assign.nearest import NearestPriors, nearest_priors
from rfla.assign.prior_grid import PriorGrid
from rfla.assign.receptive_field import level_receptive_fields, resnet_receptive_fields
from rfla.assign.sampling import PseudoSampler, RandomSampler, SampledPriors

__all__ = [
    "BACKGROUND",
    "DISTANCES",
    "IGNORED",
    "ATSSAssigner",
    "AssignmentReport",
    "Distance",
    "HierarchicalAssigner",
    "MaxIoUAssigner",
    "NearestPriors",
    "PointsAssigner",
    "PriorGrid",
    "PseudoSampler",
    "RandomSampler",
    "SampledPriors",
    "level_receptive_fields",
    "nearest_priors",
    "receptive_field_distance",
    "resnet_receptive_fields",
]
