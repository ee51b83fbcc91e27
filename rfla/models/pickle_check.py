"""Look through the pickle of a checkpoint before torch reads it, instruction by instruction.

torch's restricted unpickler runs no code of the file's choice, but it lets a file build more than a
checkpoint needs: arrays of any size, tensors larger than what is stored, keys that take for ever to
compare. Here the instructions are followed without building anything: names, tuples and the sizes
of storages are all that is kept. A file passes that holds tensors by name and plain values;
whatever numpy objects its meta holds are inert (`STAND_INS`).

The instructions are those of pickle protocol 2 (PEP 307), as `torch.save` writes them.
"""

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rfla.errors import WeightsError

MAX_INSTRUCTIONS = 2_000_000  # a DetectoRS with its optimiser takes 60,000
MAX_DEPTH = 16  # of tuples in tuples
MAX_DIMENSIONS = 8
LARGEST_KEY = 2**60  # larger whole numbers could share a hash

STORAGES = {  # bytes of a number
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
}
NUMPY_DTYPE, NUMPY_ARRAY = "numpy.dtype", "numpy.ndarray"
# their place before and since numpy 2
NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
NUMPY_REBUILDS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
STAND_INS = (NUMPY_DTYPE, NUMPY_ARRAY, *NUMPY_SCALARS, *NUMPY_REBUILDS)
NUMERIC = re.compile(r"[<>=|]?(?:[biuf][1-8]|[biuf]16|c8|c16|[SU]\d{0,4})")


@dataclass(frozen=True)
class Name:
    """A class or function that the file asks for."""

    text: str


@dataclass(frozen=True)
class Tuple:
    """A tuple of values, and how deep tuples stand in it."""

    items: tuple[Any, ...]
    depth: int


@dataclass(frozen=True)
class Storage:
    """So many stored numbers."""

    numbers: int


class Kind:
    """A value of which only the kind is kept; one object stands for each kind."""


LIST, DICT, ORDERED, BYTES, TENSOR, INERT = (Kind() for _ in range(6))


class Refused(Exception):
    """Why the file is no checkpoint."""


def check_pickle(data: bytes, stored_bytes: Mapping[str, int]) -> None:
    """Follow the instructions of a checkpoint's pickle.

    Args:
        data: the pickle.
        stored_bytes: size of each record of tensor data, by its key.

    Raises:
        WeightsError: says what the file holds that a checkpoint does not.
    """
    machine = _Machine(stored_bytes)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
            if count == MAX_INSTRUCTIONS:
                raise Refused(f"more than {MAX_INSTRUCTIONS} pickle instructions")
            handle = _HANDLERS.get(instruction.name)
            if handle is None:
                raise Refused(f"the pickle instruction {instruction.name}, of no use in one")
            handle(machine, argument)
    except Refused as error:
        raise WeightsError(str(error)) from None
    except (ValueError, IndexError, KeyError, UnicodeError, TypeError):
        raise WeightsError("a damaged pickle") from None
    if machine.stack not in ([DICT], [ORDERED]):
        raise WeightsError("no state dict in it")


@dataclass
class _Machine:
    """The stack and the memo of an unpickler, over kinds and sizes in place of objects."""

    stored_bytes: Mapping[str, int]
    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, tuple[str, int]] = field(default_factory=dict)

    def push(self, value: Any) -> None:
        """Take a value as it is."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Give the last value back."""
        return self.stack.pop()

    def mark(self) -> None:
        """Begin a run of items."""
        self.outer.append(self.stack)
        self.stack = []

    def items_since_mark(self) -> list[Any]:
        """End a run of items."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def push_tuple(self, items: list[Any]) -> None:
        """Take a tuple, unless tuples stand too deep in it."""
        depth = 1 + max((item.depth for item in items if isinstance(item, Tuple)), default=0)
        if depth > MAX_DEPTH:
            raise Refused(f"tuples nested more than {MAX_DEPTH} deep")
        self.stack.append(Tuple(tuple(items), depth))

    def push_last(self, count: int) -> None:
        """Take the last values together as a tuple."""
        items = self.stack[-count:]
        if len(items) != count:
            raise IndexError
        del self.stack[-count:]
        self.push_tuple(items)

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dict below them."""
        if self.stack[-1] not in (DICT, ORDERED) or len(items) % 2:
            raise Refused("items for what is no dict")
        for key in items[::2]:
            if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < LARGEST_KEY)):
                raise Refused("a dict whose keys are neither text nor small numbers")

    def add_items(self) -> None:
        """Check that the items, already taken off, were for a list."""
        if self.stack[-1] is not LIST:
            raise Refused("items for what is no list")

    def load_storage(self) -> None:
        """Look a storage up: a type, a record of the archive and its size have to agree."""
        match self.pop():
            case Tuple(("storage", Name(kind), str(key), str(), int(numbers)), _) if (
                kind in STORAGES
            ):
                size = self.stored_bytes.get(key)
            case Tuple(("storage", Name(kind), *_), _):
                raise Refused(f"it asks for {kind[:100]}, which no weights are stored in")
            case _:
                raise Refused("a reference to something outside the pickle that is no storage")
        if size != numbers * STORAGES[kind]:
            raise Refused(f"a storage of {numbers} numbers in a record of {size or 0} bytes")
        if self.storages.setdefault(key, (kind, numbers)) != (kind, numbers):
            raise Refused("one record as two storages")
        self.push(Storage(numbers))

    def call(self) -> None:
        """Check a call: of the few functions that a checkpoint needs, with the values they take."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, Tuple):
            raise Refused("a call of something that has no name")
        check = _CALLS.get(function.text)
        if check is None:
            raise Refused(f"it calls {function.text[:100]}, which no checkpoint needs")
        result = check(*arguments.items)
        if result is None:
            raise Refused(f"it calls {function.text} with values that no checkpoint has")
        self.push(result)

    def build(self) -> None:
        """Check a state that is given to an object."""
        state, target = self.pop(), self.stack[-1]
        if not (
            (target is ORDERED and state is DICT) or (target is INERT and isinstance(state, Tuple))
        ):
            raise Refused("a state for what has none")


def _name(machine: _Machine, argument: str) -> None:
    text = argument.replace(" ", ".")
    if text not in _CALLS and text not in STORAGES and text not in STAND_INS:
        raise Refused(f"it asks for {text[:100]}, which is neither a tensor nor a plain value")
    machine.push(Name(text))


def _tensor(*arguments: Any) -> Kind | None:
    """A view of a storage: it must not reach beyond it, nor repeat what is stored."""
    match arguments:
        case (Storage(numbers), int(offset), Tuple(size, 1), Tuple(stride, 1), bool(), Kind()):
            steps = (*size, *stride, offset)
        case _:
            return None
    if not all(type(step) is int and step >= 0 for step in steps):
        return None
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        return None
    used = math.prod(size)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if used > numbers or (used and last >= numbers):
        raise Refused(f"a tensor of shape {size} over {numbers} stored numbers")
    return TENSOR


def _parameter(*arguments: Any) -> Kind | None:
    match arguments:
        case (Kind() as data, bool(), Kind()) if data is TENSOR:
            return TENSOR
    return None


def _ordered(*arguments: Any) -> Kind | None:
    return None if arguments else ORDERED


def _encoded(*arguments: Any) -> Kind | None:
    match arguments:
        case (str(), "latin1"):
            return BYTES
    return None


def _dtype(*arguments: Any) -> Kind | None:
    match arguments:
        case (str(code), bool() | int(), bool() | int()) if NUMERIC.fullmatch(code):
            return INERT
    return None


def _scalar(*arguments: Any) -> Kind | None:
    match arguments:
        case (Kind() as dtype, Kind() as content) if dtype is INERT and content is BYTES:
            return INERT
    return None


def _array(*arguments: Any) -> Kind | None:
    match arguments:
        case (Name("numpy.ndarray"), Tuple((0,), 1), Kind() as code) if code is BYTES:
            return INERT
    return None


_CALLS: dict[str, Callable[..., Kind | None]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "_codecs.encode": _encoded,
    NUMPY_DTYPE: _dtype,
    **dict.fromkeys(NUMPY_SCALARS, _scalar),
    **dict.fromkeys(NUMPY_REBUILDS, _array),
}


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _append(machine: _Machine, _: Any) -> None:
    machine.pop()
    machine.add_items()


def _appends(machine: _Machine, _: Any) -> None:
    machine.items_since_mark()
    machine.add_items()


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


_Handler = Callable[[_Machine, Any], None]
_PLAIN = ("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1")
_HANDLERS: dict[str, _Handler] = {
    "PROTO": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    **dict.fromkeys(_PLAIN, _Machine.push),
    "SHORT_BINSTRING": lambda machine, _: machine.push(BYTES),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push(LIST),
    "EMPTY_DICT": lambda machine, _: machine.push(DICT),
    "EMPTY_TUPLE": lambda machine, _: machine.push_tuple([]),
    "TUPLE": lambda machine, _: machine.push_tuple(machine.items_since_mark()),
    "TUPLE1": lambda machine, _: machine.push_last(1),
    "TUPLE2": lambda machine, _: machine.push_last(2),
    "TUPLE3": lambda machine, _: machine.push_last(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.items_since_mark()),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "GLOBAL": _name,
    "BINPERSID": lambda machine, _: machine.load_storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
