"""Checkpoints that were written by hand to harm: refused in one line, before torch sees them.

The pickles are put together from opcodes (PEP 307), since no library writes such files.
"""

import copy
import pickle
import struct
import zipfile

import pytest
import torch

from rfla.errors import WeightsError
from rfla.models import checkpoint_file
from rfla.models.checkpoint_file import read_checkpoint
from rfla.models.pickle_check import MAX_DEPTH

PROTO, STOP = b"\x80\x02", b"."
DATA = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def name(module, part):
    return f"c{module}\n{part}\n".encode()


def values(*parts):
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(function, *arguments):
    return function + values(*arguments) + b"R"


def storage(kind="FloatStorage", key="0", count=4):
    return (
        values(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"
    )


ORDERED = name("collections", "OrderedDict") + b")R"


def tensor(stored=None, offset=0, size=(4,), stride=(1,)):
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage() if stored is None else stored,
        number(offset),
        values(*map(number, size)),
        values(*map(number, stride)),
        b"\x89",
        ORDERED,
    )


def one_item(value, key=None):
    """`{key: value}`."""
    return b"}" + (text("w") if key is None else key) + value + b"s"


def write(path, content, records=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", PROTO + content + STOP)
        archive.writestr("x/byteorder", "little")
        for key, data in ({"0": DATA} if records is None else records).items():
            archive.writestr(f"x/data/{key}", data)
        archive.writestr("x/version", "3\n")
    return path


def test_what_these_helpers_write_is_read(tmp_path):
    found = read_checkpoint(write(tmp_path / "x.pth", one_item(tensor(size=(2, 2), stride=(2, 1)))))
    assert torch.equal(found["w"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


DTYPE = name("numpy", "dtype")
ARRAY = name("numpy", "ndarray")
REBUILD = name("numpy.core.multiarray", "_reconstruct")
LATIN = call(name("_codecs", "encode"), text("b"), text("latin1"))
OBJECTS = call(DTYPE, text("O8"), b"\x89", b"\x88")
FLOATS = call(DTYPE, text("f8"), b"\x89", b"\x88")

CALLS = {
    # the attack: an array of objects over bytes of the file's choice
    "array of objects over a buffer": call(ARRAY, values(number(4)), OBJECTS, LATIN),
    "array over a buffer": call(ARRAY, values(number(4)), FLOATS, LATIN),
    "new array": ARRAY + values(number(10**9)) + b"\x81",
    "objects by reconstruction": call(REBUILD, ARRAY, values(number(0)), LATIN)
    + values(number(1), values(number(1)), OBJECTS, b"\x89", LATIN)
    + b"b",
    "dtype of objects": OBJECTS,
    "dtype of a record": call(DTYPE, b"]", b"\x89", b"\x88"),
    "scalar of objects": call(name("numpy.core.multiarray", "scalar"), OBJECTS, LATIN),
    "reconstruction of a large array": call(REBUILD, ARRAY, values(number(10**12)), LATIN),
    "reconstruction of another class": call(REBUILD, DTYPE, values(number(0)), LATIN),
    "another codec": call(name("_codecs", "encode"), text("b" * 99), text("idna")),
    "bytes": call(name("builtins", "bytearray"), number(10**12)),
    "set": call(name("builtins", "set"), b"]"),
    "counter": call(name("collections", "Counter"), b"]"),
    "tensor": call(name("torch", "Tensor"), number(10**12)),
    "size": call(name("torch", "Size"), b"]"),
    "device": call(name("torch", "device"), text("cuda")),
    "function of torch": call(name("torch._utils", "_rebuild_qtensor"), number(1)),
    "subclass": call(name("torch._tensor", "_rebuild_from_type_v2"), number(1)),
    "called storage": call(name("torch", "FloatStorage"), number(4)),
    "ordered dict of items": call(name("collections", "OrderedDict"), b"]"),
    "system": call(name("os", "system"), text("touch ran")),
    "stand-in by its own name": call(name("rfla.models.checkpoint_file", "StandIn")),
    "a name that is text": call(text("os.system"), text("touch ran")),
    "state of a tensor": tensor() + values(storage(), number(0), values(), values()) + b"b",
    "state of a list": b"]}b",
    "items for a tensor": tensor() + text("a") + number(1) + b"s",
    "items for a tuple": b")" + number(1) + b"a",
    "persistent text": text("x") + b"Q",
    "persistent other": values(text("module"), name("torch", "FloatStorage")) + b"Q",
}


@pytest.mark.parametrize("value", CALLS.values(), ids=CALLS)
def test_calls_that_no_checkpoint_needs(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", None)  # not even torch's restricted unpickler sees it
    write(tmp_path / "x.pth", one_item(value))
    with pytest.raises(WeightsError, match=r"^\S+x\.pth: refused, nothing in it was run: ") as why:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in str(why.value) and len(str(why.value)) < 500
    assert [file.name for file in tmp_path.iterdir()] == ["x.pth"]


TENSORS = {
    "beyond its storage": tensor(size=(5,)),
    "beyond its storage by the offset": tensor(offset=1),
    "beyond its storage by the stride": tensor(stride=(2,)),
    "repeating what is stored": tensor(size=(10**6, 10**6), stride=(0, 0)),
    "of a negative offset": tensor(offset=-1),
    "of a negative size": tensor(size=(-4,)),
    "of a negative stride": tensor(stride=(-1,)),
    "of other dimensions": tensor(size=(2, 2), stride=(1,)),
    "of too many dimensions": tensor(size=(1,) * 99, stride=(1,) * 99),
    "of a shape that is text": call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(),
        number(0),
        values(text("4")),
        values(number(1)),
        b"\x89",
        ORDERED,
    ),
    "over a record that is longer": tensor(storage(count=3)),
    "over a record that is shorter": tensor(storage(count=10**12)),
    "over a record that is not there": tensor(storage(key="1")),
    "over a record outside": tensor(storage(key="../data.pkl")),
    "over another type": tensor(storage("DoubleStorage", count=4)),
    "over a complex type": tensor(storage("ComplexFloatStorage", count=2)),
    "over no type": tensor(storage("UntypedStorage", count=16)),
    "over one record twice": values(tensor(), tensor(storage("IntStorage"))),
}


@pytest.mark.parametrize("value", TENSORS.values(), ids=TENSORS)
def test_tensors_stay_within_what_is_stored(tmp_path, monkeypatch, value):
    monkeypatch.setattr(torch, "load", None)
    write(tmp_path / "x.pth", one_item(value))
    with pytest.raises(
        WeightsError,
        match=r"asks for torch|a storage of|a tensor of shape|with values that|as two storages",
    ):
        read_checkpoint(tmp_path / "x.pth")


def test_nested_keys_end_at_once(tmp_path):
    """Pairs of one tuple, 60 deep: comparing or hashing such a key takes 2**60 steps."""
    key = b")" + b"q\x00h\x00\x86" * 60
    write(tmp_path / "x.pth", one_item(number(1), key))
    with pytest.raises(WeightsError, match=f"nested more than {MAX_DEPTH} deep"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("key", [b")", number(2**61 - 1), number(1.5), b"N", b"]"])
def test_keys_are_text_or_small_numbers(tmp_path, key):
    """Whole numbers 2**61 - 1 apart share a hash: a million of them would take for ever."""
    write(tmp_path / "x.pth", one_item(number(1), key))
    with pytest.raises(WeightsError, match="keys"):
        read_checkpoint(tmp_path / "x.pth")


def test_instructions_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("rfla.models.pickle_check.MAX_INSTRUCTIONS", 1000)
    write(tmp_path / "x.pth", one_item(b"]" + b"Na" * 1000))
    with pytest.raises(WeightsError, match="more than 1000 pickle instructions"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "content",
    [
        b"",  # nothing
        b"]",  # no dict
        b"}}",  # two of them
        b"}(",  # a mark that never ends
        b"R",  # a call of nothing
        b"h\x07",  # a value that was never kept
        b"}X\xff\xff\xff\xff",  # text that is cut off
        b"}X\x01\x00\x00\x00\xffNs",  # no UTF-8
        b"cos\n",  # half a name
        b"\x95" + bytes(8),  # an instruction of protocol 4
        b"\x93",  # names from the stack, protocol 4
        b"}I1e9\nNs",  # numbers as text, protocol 0
    ],
)
def test_damaged_pickles(tmp_path, content):
    write(tmp_path / "x.pth", content)
    with pytest.raises(WeightsError) as why:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in str(why.value)


def plain(path):
    return write(path, one_item(tensor())).read_bytes()


def test_archives_that_could_be_read_in_two_ways(tmp_path):
    path = tmp_path / "x.pth"
    content = plain(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/DATA.pkl", b"")
    with pytest.raises(WeightsError, match="two with one name"):
        read_checkpoint(path)
    path.write_bytes(content + b"PK trailing")
    with pytest.raises(WeightsError, match="no zip archive"):
        read_checkpoint(path)
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y/data.pkl", b"")
    with pytest.raises(WeightsError, match=r"not one that torch\.save wrote"):
        read_checkpoint(path)


def test_a_changed_byte_of_a_tensor(tmp_path):
    """torch reads past a wrong checksum; where it was told to write none, there is none to fail."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged \(checksum of x/data/0\)"):
        read_checkpoint(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(1000.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)["a"][500] == 500


def test_overlapping_records(tmp_path):
    """Many names for the same bytes: a small file that claims to hold much."""
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", PROTO + one_item(tensor()) + STOP)
        archive.writestr("x/data/0", DATA)
        again = copy.copy(archive.getinfo("x/data/0"))
        again.filename = "x/data/1"
        archive.filelist.append(again)
    with pytest.raises(WeightsError, match="overlap"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "a web page"),
        (b"\xef\xbb\xbf\n<HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"model: fcos\n", "a text file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old format"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (struct.pack("<Q", 20) + b'{"__metadata__": {}}', "give it as model="),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as why:
        read_checkpoint(path)
    assert "pickle" not in str(why.value) and "\n" not in str(why.value)


def test_weights_of_a_yolo_are_named(tmp_path):
    write(tmp_path / "x.pth", one_item(name("ultralytics.nn.tasks", "DetectionModel")))
    with pytest.raises(WeightsError, match="weights of a YOLO"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("version", ["2.9.1+cu130", "2.6.0", "1.13"])
def test_an_old_torch_opens_nothing(tmp_path, monkeypatch, version):
    path = tmp_path / "x.pth"
    plain(path)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(WeightsError, match=r"CVE-2026-24747.*needs torch 2\.10"):
        read_checkpoint(path)
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert read_checkpoint(path).keys() == {"w"}


def test_what_numpy_would_build_is_not_built(tmp_path):
    value = call(name("numpy.core.multiarray", "scalar"), FLOATS, LATIN)
    found = read_checkpoint(write(tmp_path / "x.pth", one_item(value)))
    assert type(found["w"]) is checkpoint_file.StandIn
    assert vars(found["w"]) == {}
