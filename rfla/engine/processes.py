"""Several processes for one run: `device=0,1` starts one for each GPU.

Several machines, and processes without GPUs, are started by `torchrun` itself (docs/multi_gpu.md).
"""

import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfla.cfg import Config
from rfla.cfg.keys import value_at
from rfla.engine.device import select_device
from rfla.engine.distributed import world_size
from rfla.engine.run_dir import create_run_dir
from rfla.errors import ConfigError, RflaError


def needs_several(device: str) -> bool:
    """Whether `device=` names several GPUs and this process is not one of their processes yet."""
    return "," in device and world_size() == 1


def refuse_several(device: str, verb: str) -> None:
    """Say how val and predict use several GPUs, instead of quietly using the first.

    Raises:
        ConfigError: `device=` names several, and torchrun did not start this process.
    """
    if needs_several(device):
        count = device.count(",") + 1
        raise ConfigError(
            f"device={device}: start it as torchrun --standalone --nproc-per-node {count} "
            f"-m rfla {verb} ..., or name one device"
        )


def train_on_several(cfg: Config, *, with_hooks: bool = False) -> Path:
    """Train with one process for each GPU of `cfg.device`; return the run directory.

    Raises:
        ConfigError: A GPU that does not exist, or hooks, which cannot cross into new processes.
        RflaError: A process failed; it has printed why.
    """
    numbers = cfg.device.split(",")
    for number in numbers:
        select_device(number)
    if with_hooks:
        raise ConfigError(
            "hooks= with several devices: start your script with torchrun, and leave device= out"
        )
    if cfg.resume:
        run_dir = Path(str(cfg.resume))
        tokens = [*tokens_of(cfg, cfg.given - {"name", "project", "resume"}), f"resume={run_dir}"]
    else:
        run_dir = create_run_dir(cfg.project, cfg.name or "train", cfg.exist_ok)
        place = (f"project={run_dir.parent}", f"name={run_dir.name}", "exist_ok=true")
        tokens = [*tokens_of(cfg, cfg.given - {"name", "project", "exist_ok"}), *place]
    try:
        start_processes(len(numbers), ["-m", "rfla", "train", *tokens])
    finally:
        if not any(run_dir.iterdir()):
            run_dir.rmdir()
    return run_dir


def tokens_of(cfg: Config, keys: frozenset[str]) -> list[str]:
    """Return dotted keys as the command line takes them."""
    values = cfg.model_dump(mode="json")
    return [f"{key}={_text(value_at(values, key))}" for key in sorted(keys)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def start_processes(count: int, arguments: Sequence[str]) -> None:
    """Run `python ARGUMENTS` in `count` processes that find each other.

    Return when all have ended well.

    Raises:
        KeyboardInterrupt: Somebody stopped the run; the processes had half a minute to save.
        RflaError: One failed; the others were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RflaError(
            f"process {rank} of {count} ended with code {failure.exitcode}; the reason is above"
        ) from None
