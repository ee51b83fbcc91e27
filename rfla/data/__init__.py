"""Files -> batches: data sets by name or path, flat indices, augmentation, loaders."""

from rfla.data.dataset import DetectionDataset, Sample
from rfla.data.index import BoxIndex, load_index
from rfla.data.loader import Batch, EvalSampler, Loader, TrainSampler, build_loader
from rfla.data.spec import DataSpec, load_data_spec
from rfla.data.transforms import Augmentation, build_augmentation

__all__ = [
    "Augmentation",
    "Batch",
    "BoxIndex",
    "DataSpec",
    "DetectionDataset",
    "EvalSampler",
    "Loader",
    "Sample",
    "TrainSampler",
    "build_augmentation",
    "build_loader",
    "load_data_spec",
    "load_index",
]
