"""What can be known to fail before torch, weights and data are loaded: paths, device, batch."""

import glob
import sys
from pathlib import Path

from rfla.cfg.keys import show
from rfla.cfg.layer_files import data_spec, is_file_of_ours
from rfla.cfg.schema import Config, Mode
from rfla.errors import ConfigError, DataError, WeightsError
from rfla.files import open_regular, unwritable

# What a driver of CUDA or ROCm leaves in a Linux system, on a board or under WSL.
GPU_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg", "/dev/nvhost*", "/dev/nvmap")


def check_early(config: Config, mode: Mode) -> None:
    """Refuse what cannot work, with the words that it would be refused with later.

    Raises:
        ConfigError: no such device, a batch that only a GPU can find, a project that no file can
            be written into, or weights for a backbone beside those of a whole model.
        DataError: no such data set or detections file.
        WeightsError: no such file of weights for the backbone.
    """
    _check_device(config, mode)
    check_project(config.project)
    if mode != "predict" and config.data is not None and not config.resume:
        data_spec(config.data)
    if mode == "train" and not config.resume:
        check_backbone(config)
    if mode == "val" and config.predictions is not None and not Path(config.predictions).exists():
        raise DataError(f"predictions={show(config.predictions, 200)}: no such file")


def check_project(project: str) -> None:
    """Refuse a directory of runs that no file can be written into.

    Raises:
        ConfigError: with the reason.
    """
    reason = unwritable(project)
    if reason:
        raise ConfigError(f"project={show(project, 200)}: {reason}; give another one")


def check_backbone(config: Config) -> None:
    """Refuse a file of weights for the backbone that cannot be read, or beside a trained model.

    Raises:
        ConfigError: the model is a weights file.
        WeightsError: no such file.
    """
    weights = config.backbone.weights
    if weights is None:
        return
    if is_file_of_ours(str(config.model)):
        raise ConfigError(
            f"backbone.weights={show(weights)}: {show(config.model)} has a backbone with weights "
            "already; give a zoo name or a model YAML"
        )
    open_regular(weights, WeightsError).close()


def _check_device(config: Config, mode: Mode) -> None:
    device = config.device
    if config.batch == -1 and mode == "train" and device in ("cpu", "mps"):
        raise ConfigError(
            "batch=-1 looks for the largest batch that fits into a GPU's memory; "
            f"with device={device} give a number"
        )
    on_gpu = device not in ("auto", "cpu", "mps")
    if on_gpu and sys.platform == "linux" and not any(glob.glob(name) for name in GPU_FILES):
        raise ConfigError(f"device={device}: no CUDA GPU found; use device=cpu")
    if device == "mps" and sys.platform != "darwin":
        raise ConfigError("device=mps: this machine has no Apple GPU; use device=cpu")
