"""The rows of `results.csv` for TensorBoard, if asked for.

The library is an extra and slow to import.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfla.errors import ConfigError


class TensorBoard:
    """Writes event files into a run directory.

    Args:
        run_dir: Where; None writes nothing.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, run_dir: Path | None):
        self.writer: Any = None
        if run_dir is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"tensorboard=true: not installed ({error}); pip install 'rfla[log]'"
            ) from error
        self.writer = SummaryWriter(str(run_dir))

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Write one epoch's figures."""
        if self.writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def close(self) -> None:
        """End the event file."""
        if self.writer is not None:
            self.writer.close()
