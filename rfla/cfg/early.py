"""What can be known to fail before torch, weights and data are loaded: paths, device, batch."""

import glob
import sys
from pathlib import Path

from rfla.cfg.keys import show
from rfla.cfg.layer_files import data_spec
from rfla.cfg.schema import Config, Mode
from rfla.errors import ConfigError, DataError

# What a driver of CUDA or ROCm leaves in a Linux system, on a board or under WSL.
GPU_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg", "/dev/nvhost*", "/dev/nvmap")


def check_early(config: Config, mode: Mode) -> None:
    """Refuse what cannot work, with the words that it would be refused with later.

    Raises:
        ConfigError: no such device, or a batch that only a GPU can find.
        DataError: no such data set or detections file.
    """
    _check_device(config, mode)
    if mode != "predict" and config.data is not None and not config.resume:
        data_spec(config.data)
    if mode == "val" and config.predictions is not None and not Path(config.predictions).exists():
        raise DataError(f"predictions={show(config.predictions, 200)}: no such file")


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
