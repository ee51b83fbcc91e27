"""Samples -> batches: collation and loading processes; the order is in `samplers.py`.

Shapes: B images of a batch, G boxes of one image. The order and each sample are functions of (seed,
epoch, row): the same at any number of workers, and the ranks of a distributed run together see the
same global batches.
"""

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from rfla.data.dataset import DetectionDataset, Sample
from rfla.data.samplers import EvalSampler, TrainSampler
from rfla.data.stacking import stack_images
from rfla.errors import DataError
from rfla.stop_signals import STOP_SIGNALS

log = logging.getLogger("rfla.data")

_PATIENCE = 0.5  # s that a loading process has to end by itself, and then after a signal
# Sent to the whole group, and answered by the main process, which ends its workers itself.
_FOR_THE_MAIN_PROCESS = [number for number in STOP_SIGNALS if number != signal.SIGTERM]


@dataclass(frozen=True)
class Batch:
    """B samples, padded with zeros on the right and at the bottom.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; H and W are multiples of the stride.
        image_sizes: B pairs (h, w) before padding, px.
        targets: B dicts of boxes (G, 4) float32 xyxy input px, labels (G,) int64, ignore (I, 4)
            float32.
        indices: (B,) int64, rows of the `Annotations`.
        scales: (B, 2) float32 (sx, sy), input px per px of the annotations.
        skipped: Rows that could not be read, with the reason.
        remarks: Rows whose files a user should know something of, with what.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    targets: list[dict[str, Tensor]]
    indices: Tensor
    scales: Tensor
    skipped: tuple[tuple[int, str], ...] = ()
    remarks: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.image_sizes)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch with images and targets on `device`; indices and scales stay on the CPU."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, for asynchronous copies."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        targets = [{key: change(value) for key, value in target.items()} for target in self.targets]
        return replace(self, images=change(self.images), targets=targets)


class Loader:
    """Batches of a data set; names each unreadable image once, and remembers it.

    Attributes:
        skipped: Reason by row of every image that could not be read so far.
        remarks: What was remarked on files so far; each is logged once, with the first file.
    """

    def __init__(
        self,
        loader: "DataLoader[Batch]",
        sampler: TrainSampler | EvalSampler,
        paths: NDArray[np.str_],
        timeout: float = 0,
    ) -> None:
        self.loader = loader
        self.timeout = timeout
        self.sampler = sampler
        self.skipped: dict[int, str] = {}
        self.remarks: set[str] = set()
        self._paths = paths
        # At the latest when the interpreter ends, whatever still refers to this loader.
        self._workers_ended = weakref.finalize(self, _end_workers, loader)

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def dataset(self) -> DetectionDataset:
        """What the batches are made of."""
        return cast(DetectionDataset, self.loader.dataset)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches():
            for row, reason in batch.skipped:
                if row not in self.skipped:
                    self.skipped[row] = reason
                    log.warning("image skipped (%d so far): %s", len(self.skipped), reason)
            for row, remark in batch.remarks:
                if remark not in self.remarks:
                    self.remarks.add(remark)
                    log.warning("%s (first: %s)", remark, self._paths[row])
            if len(batch):
                yield batch

    def close(self) -> None:
        """End the loading processes within seconds; another pass over the loader starts others."""
        _end_workers(self.loader)

    def _batches(self) -> Iterator[Batch]:
        # The limit holds for each batch anew, and not while the caller works with one.
        with self._limited():  # processes of an earlier pass end it first
            batches = iter(self.loader)
        while True:
            with self._limited():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Wait for a batch no longer than `timeout`; say what went wrong in a loading process.

        torch has a limit of its own, which does not hold while it receives what a stopped process
        has half sent. So all loading processes are killed here, which torch notices in any case.
        """
        late = threading.Event()

        def kill() -> None:
            late.set()
            for process in getattr(self.loader._iterator, "_workers", ()):
                process.kill()

        timer = threading.Timer(self.timeout, kill)
        timer.daemon = True
        if self.timeout and self.loader.num_workers:
            timer.start()
        try:
            yield
        except DataError as error:  # from a worker it comes with the worker's traceback in its text
            last = str(error).strip().splitlines()[-1]
            raise DataError(last.removeprefix("rfla.errors.DataError: ")) from None
        except (RuntimeError, OSError, EOFError):
            if not late.is_set():
                raise
            raise DataError(
                f"no batch for {self.timeout:g} s: a process that loads images is stopped, "
                "or the disk is too slow; raise timeout=, or use workers=0"
            ) from None
        finally:
            timer.cancel()


def build_loader(
    dataset: DetectionDataset,
    sampler: TrainSampler | EvalSampler,
    workers: int = 2,
    pin_memory: bool = False,
    timeout: float = 0,
) -> Loader:
    """Batches of `dataset`.

    Args:
        dataset: Samples by `(epoch, row)`.
        sampler: Which rows make up a batch, and in which order.
        workers: Processes; 0 loads in this one.
        pin_memory: For copies to a GPU.
        timeout: Seconds without a batch after which a loading process counts as stopped; 0: never.
    """
    fork = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        # A generator of its own: each pass over a DataLoader draws a number, and a resumed run
        # makes one pass more than an unbroken one.
        generator=torch.Generator(),
        # Forked workers share the arrays of the index and a cache in memory; a spawned one would
        # copy them.
        multiprocessing_context="fork" if fork else None,
    )
    return Loader(loader, sampler, dataset.index.paths, timeout)


def collate(samples: list[Sample]) -> Batch:
    """Stack B samples, padded; one without pixels leaves its reason."""
    skipped = tuple(entry for sample in samples for entry in sample.skipped)
    remarks = tuple(entry for sample in samples for entry in sample.remarks)
    samples = [sample for sample in samples if sample.image.size]
    images, sizes = stack_images([sample.image for sample in samples], least=0)
    return Batch(
        images=images,
        image_sizes=sizes,
        targets=[_target(sample) for sample in samples],
        indices=torch.tensor([sample.row for sample in samples], dtype=torch.int64),
        scales=torch.tensor([sample.scale for sample in samples], dtype=torch.float32).reshape(
            -1, 2
        ),
        skipped=skipped,
        remarks=remarks,
    )


def _target(sample: Sample) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(np.ascontiguousarray(sample.boxes, np.float32)),
        "labels": torch.from_numpy(np.ascontiguousarray(sample.labels, np.int64)),
        "ignore": torch.from_numpy(np.ascontiguousarray(sample.ignore, np.float32)),
    }


def _start_worker(worker: int) -> None:
    """Prepare a loading process."""
    for number in _FOR_THE_MAIN_PROCESS:
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    # One thread each: the workers are the parallelism.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Samples seed themselves; these seeds are for code that uses the global generators.
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def _end_with_parent() -> None:
    """End this process when its parent has gone or sends SIGTERM; ignore the SIGTERM of others.

    `timeout` and SLURM send SIGTERM to the whole group. The main process answers that: it still
    needs its workers while it writes the state of the run.
    """
    parent = os.getppid()
    if not hasattr(signal, "sigtimedwait"):  # macOS: who sent a signal is not known
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        return

    def wait() -> None:
        while os.getppid() == parent:
            received = signal.sigtimedwait({signal.SIGTERM}, _PATIENCE)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)

    # Blocked in all threads, the signal stays for the one that waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()


def _end_workers(loader: "DataLoader[Batch]") -> None:
    """End the processes of a loader: they are asked, then terminated, then killed."""
    # Without its iterator the loader starts new processes for the next pass.
    iterator, loader._iterator = loader._iterator, None
    if not isinstance(iterator, _MultiProcessingDataLoaderIter):
        return
    workers: Sequence[BaseProcess] = iterator._workers
    # In a thread, since a worker that was killed can have taken the lock of a queue with it.
    asking = threading.Thread(target=iterator._shutdown_workers, daemon=True)
    # torch reports a killed worker by a RuntimeError, and Python refuses threads at its own end.
    with suppress(RuntimeError):
        asking.start()
        asking.join(_PATIENCE)
    for end in (BaseProcess.terminate, BaseProcess.kill):
        for process in workers:
            end(process)
        with suppress(RuntimeError):
            _join_all(workers, _PATIENCE)


def _join_all(workers: Sequence[BaseProcess], seconds: float) -> None:
    """Wait until all processes have ended, but no longer than `seconds` in all."""
    latest = time.monotonic() + seconds
    for process in workers:
        process.join(max(latest - time.monotonic(), 0))
