"""Files -> batches: data sets by name or path, flat indices, augmentation, loaders."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfla.data.annotations import Annotations
    from rfla.data.dataset import DetectionDataset, Sample
    from rfla.data.index import load_index
    from rfla.data.loader import Batch, Loader, build_loader
    from rfla.data.samplers import EvalSampler, TrainSampler
    from rfla.data.spec import DataSpec, load_data_spec
    from rfla.data.transforms import Augmentation, build_augmentation

__all__ = [
    "Annotations",
    "Augmentation",
    "Batch",
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

_HOMES = {
    "dataset": ("DetectionDataset", "Sample"),
    "annotations": ("Annotations",),
    "index": ("load_index",),
    "loader": ("Batch", "Loader", "build_loader"),
    "samplers": ("EvalSampler", "TrainSampler"),
    "spec": ("DataSpec", "load_data_spec"),
    "transforms": ("Augmentation", "build_augmentation"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: `rfla convert` and `rfla inspect` do without torch."""
    if name in _HOME_OF:
        return getattr(import_module(f"rfla.data.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'rfla.data' has no attribute '{name}'")
