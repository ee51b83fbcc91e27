"""Tensors with real values on the CPU that claim to be on `cuda:0`.

A forward pass on them follows CUDA's rules of autocast, and `Log` counts what a GPU would meet:
operations that mix devices, reads and copies for which the host waits, kernels that are launched.
The backward pass, CUDA's own kernels and NCCL cannot be shown so.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
COPIES = ("aten._to_copy.default", "aten.copy_.default")
INDEXING = ("aten.index.Tensor", "aten.index_put_.default", "aten.index_put.default")
# the host needs their result, or the size of it
WAITING = {
    "aten._local_scalar_dense.default",
    "aten._unique2.default",
    "aten.bincount.default",
    "aten.equal.default",
    "aten.histc.default",
    "aten.is_nonzero.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.repeat_interleave.Tensor",
    "aten.unique_consecutive.default",
    "aten.unique_dim.default",
    "torchvision.nms.default",
}
# kernels of one call, where they are several
KERNELS = {
    "aten._unique2.default": 6,
    "aten.argsort.default": 4,
    "aten.argsort.stable": 4,
    "aten.bincount.default": 4,
    "aten.nonzero.default": 4,
    "aten.sort.default": 4,
    "aten.sort.stable": 4,
    "aten.topk.default": 2,
    "torchvision.nms.default": 5,
}
# allocate or rename, and launch nothing
NO_KERNEL = {
    "aten._local_scalar_dense.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.lift_fresh.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
}


@dataclass
class Log:
    """What a GPU would meet.

    Attributes:
        waits: operation and line of rfla, of each time that the host waits.
        mixed: the same, of operations on tensors of both devices.
        kernels: launches.
    """

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    mixed: Counter[tuple[str, str]] = field(default_factory=Counter)
    kernels: int = 0


class OnCuda(Tensor):
    """A tensor with values on the CPU and the device `cuda:0`."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    values: Tensor
    record = Log()

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> "OnCuda":
        claimed = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=CUDA,
            requires_grad=requires_grad,
        )
        claimed.values = values
        return claimed

    def tolist(self) -> Any:
        self.record.waits["tolist", line_of_rfla()] += 1
        return self.values.tolist()

    def __repr__(self) -> str:
        return f"OnCuda({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Sends operations that make tensors on `cuda` the same way."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def line_of_rfla() -> str:
    """The innermost line of the package on the stack."""
    for frame in reversed(traceback.extract_stack()):
        if "/rfla/" in frame.filename:
            return f"{frame.filename.rpartition('/rfla/')[2]}:{frame.lineno}"
    return "?"


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, note what a GPU would do, and claim the result where one would."""
    name = str(func)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_cuda = [tensor for tensor in tensors if isinstance(tensor, OnCuda)]
    wanted = kwargs.get("device")
    to_cuda = torch.device(wanted).type == "cuda" if wanted is not None else bool(on_cuda)
    note_waits(name, args, kwargs, tensors, to_cuda)

    plain_args, plain_kwargs = tree_map(
        lambda leaf: leaf.values if isinstance(leaf, OnCuda) else leaf, (args, kwargs)
    )
    if wanted is not None and to_cuda:
        plain_kwargs["device"] = torch.device("cpu")
    if "pin_memory" in plain_kwargs:
        plain_kwargs["pin_memory"] = False
    with _disable_current_modes():
        result = compute(name, func, plain_args, plain_kwargs)

    mutates = func._schema.is_mutable
    if (on_cuda or to_cuda) and name not in NO_KERNEL:
        before = {tensor.untyped_storage().data_ptr() for tensor in tensors_of((plain_args,))}
        after = [tensor.untyped_storage().data_ptr() for tensor in tensors_of(result)]
        is_view = not mutates and after and all(place in before for place in after)
        OnCuda.record.kernels += 0 if is_view else KERNELS.get(name, 1)
    if mutates and name.split(".")[1].endswith("_"):
        return args[0] if result is not None else None
    if not to_cuda:
        return result
    return tree_map(
        lambda leaf: OnCuda(leaf) if type(leaf) in (Tensor, nn.Parameter) else leaf, result
    )


def compute(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """The operation on the CPU; cuDNN's batch norm is not there."""
    if name == "aten.cudnn_batch_norm.default":
        outputs = torch.ops.aten.native_batch_norm(*args)
        return (*outputs, torch.zeros(0, dtype=torch.uint8))
    return func(*args, **kwargs)


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.numel()]


def note_waits(name: str, args: Any, kwargs: Any, tensors: list[Tensor], to_cuda: bool) -> None:
    """Log the waits of an operation, and whether it mixes devices."""
    log, place = OnCuda.record, line_of_rfla()
    on_cuda = [tensor for tensor in tensors if isinstance(tensor, OnCuda)]
    on_host = [tensor for tensor in tensors if not isinstance(tensor, OnCuda)]
    if name in COPIES:
        source, target = (args[0], to_cuda) if name == COPIES[0] else (args[1], args[0])
        here = isinstance(source, OnCuda)
        there = target if isinstance(target, bool) else isinstance(target, OnCuda)
        asynchronous = kwargs.get("non_blocking") or (name == COPIES[1] and args[2:3] == (True,))
        if here != there and not asynchronous:
            log.waits["copy to the host" if here else "copy to the device", place] += 1
        return
    # a number on the host may meet a tensor on the device, but not as an index or what it stores
    lone = name in INDEXING
    if on_cuda and any(lone or tensor.dim() for tensor in on_host):
        log.mixed[name, place] += 1
    if name in WAITING and on_cuda:
        log.waits[name, place] += 1
    if name in INDEXING and on_cuda:
        masks = [index for index in args[1] if index is not None]
        if any(mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            log.waits[f"{name} by a mask", place] += 1


@contextmanager
def simulation(monkeypatch: Any) -> Iterator[Log]:
    """CUDA's rules on values of the CPU: `to_cuda` for the network, `OnCuda` for its inputs."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    OnCuda.record = Log()
    try:
        with Mode():
            yield OnCuda.record
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def to_cuda(net: nn.Module) -> nn.Module:
    """Let the parameters and buffers of a network claim to be on `cuda:0`."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                claimed = OnCuda(parameter.detach(), parameter.requires_grad)
                module._parameters[name] = claimed
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnCuda(buffer)
    return net
