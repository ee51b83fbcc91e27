"""What happens when numbers are not finite.

The batch is named, its step and its statistics are not kept, and a run that does not recover ends
with the weights from before.

Shapes: R running statistics of all norm layers together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rfla.engine.training_state import write_last
from rfla.errors import RflaError

if TYPE_CHECKING:
    from rfla.engine.meter import BatchRecord
    from rfla.engine.trainer import Trainer

MAX_SKIPPED_IN_A_ROW = 10  # batches with a non-finite loss after which the run stops


class RunningStatistics:
    """The statistics of norm layers that learn.

    They would keep a value that is not finite for ever.

    Args:
        net: A network in training mode.
    """

    def __init__(self, net: nn.Module) -> None:
        self.tensors = [
            buffer
            for module in net.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        self.before: Tensor | None = None  # (R,)

    def keep(self) -> None:
        """Remember them before a forward pass."""
        self.before = torch.cat(self.tensors) if self.tensors else None

    def take_back_unless(self, finite: Tensor) -> None:
        """Go back to what `keep` remembered if `finite` (0-d bool on the device) is false.

        The host does not wait.
        """
        if self.before is not None:
            chosen = torch.where(finite, torch.cat(self.tensors), self.before)
            torch._foreach_copy_(
                self.tensors, torch.split(chosen, [len(tensor) for tensor in self.tensors])
            )


def name_bad_batches(trainer: Trainer) -> None:
    """Say which batches since the last look had a loss or a gradient that was not finite, and count them."""
    for record in trainer.meter.recent:
        bad = record.not_finite()
        if not bad:
            trainer.position.skipped_in_a_row = 0
        elif not _is_search_for_scale(trainer, bad):
            _name(trainer, record, bad)
    trainer.meter.recent.clear()


def _is_search_for_scale(trainer: Trainer, bad: list[str]) -> bool:
    """Whether a scaler for float16 has yet to come down to the largest factor that does not overflow."""
    return bad == ["gradient"] and trainer.dtype == torch.float16 and trainer.scaler.get_scale() > 1


def _name(trainer: Trainer, record: BatchRecord, bad: list[str]) -> None:
    trainer.meter.skipped += 1
    trainer.position.skipped_in_a_row += 1
    paths = [str(trainer.parts.train_index.paths[i]) for i in record.indices.tolist()[:4]]
    who = "" if trainer.is_main else f"process {trainer.world.rank}: "
    what = f"skipped a step: {', '.join(bad)} not finite; images {', '.join(paths)}"
    trainer.console.print(who + what, style="red")


def give_up(trainer: Trainer) -> None:
    """End a run whose loss does not come back; the weights are those before the bad steps.

    Raises:
        RflaError: In the main process.
        SystemExit: In the others, which say nothing.
    """
    if not trainer.is_main:
        raise SystemExit(RflaError.exit_code)
    if weights_are_finite(trainer):
        write_last(trainer)
    last = trainer.run_dir / "weights" / "last.safetensors"
    left = f"the last good weights are in {last}" if last.exists() else "there are no good weights"
    raise RflaError(
        f"the loss was not finite in {MAX_SKIPPED_IN_A_ROW} batches in a row; {left}; try a lower lr0= or clip_grad="
    )


def weights_are_finite(trainer: Trainer) -> bool:
    """Whether the network could still be saved: no weight and no running statistic is infinite or not a number."""
    state = trainer.evaluated_net().state_dict().values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in state if tensor.is_floating_point())
