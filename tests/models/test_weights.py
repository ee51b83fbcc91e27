"""Weights files: there and back, atomic, and hostile ones refused in one line."""

import json
import struct

import pytest
import torch

from rfla.errors import ConfigError, RflaError, WeightsError
from rfla.models import build_detector
from rfla.models.weights import (
    build_from_metadata,
    load_model,
    load_weights,
    read_metadata,
    save_weights,
)

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "head.depth": 1}


def metadata_of(net, names):
    return {
        "format": 1,
        "version": "0",
        "model": net.config.model_dump(mode="json"),
        "names": names,
    }


@pytest.fixture(scope="module")
def net():
    return build_detector("fcos_p2", 2, settings=SMALL)


@pytest.fixture
def saved(net, tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, net.state_dict(), metadata_of(net, ["ship", "car"]))
    return path


def test_there_and_back(net, saved):
    again, metadata = load_model(saved)
    assert metadata["names"] == ["ship", "car"]
    assert again.config == net.config
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_failed_write_leaves_the_old_file(net, saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(saved, net.state_dict(), metadata_of(net, ["a", "b"]))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["x.safetensors"]


def test_colleagues_may_read_it_as_any_other_file(saved):
    usual = saved.with_name("usual")
    usual.touch()
    assert saved.stat().st_mode == usual.stat().st_mode


def with_header(path, header, payload=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + payload)
    return path


def ours(**changes):
    text = {"format": 1, "names": ["a"], "model": {"detector": "fcos"}} | changes
    return {"__metadata__": {"rfla": json.dumps(text)}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a safetensors file"),
        (lambda path: path.write_bytes(b"\x80\x04\x95" * 40), "not a safetensors file"),
        (lambda path: with_header(path, b"{}", length=2**62), "header of"),  # asks for exabytes
        (lambda path: with_header(path, b"{" * 2000), "not JSON"),
        (
            lambda path: with_header(path, b"[" * 100_000),
            "not JSON",
        ),  # nested too deep for a parser
        (lambda path: with_header(path, b"[1]"), "not a JSON object"),
        (
            lambda path: with_header(path, {"__metadata__": {"format": "pt"}}),
            "rfla import",
        ),  # somebody else's file
        (lambda path: with_header(path, {"__metadata__": 3}), "without the metadata"),
        (lambda path: with_header(path, {"__metadata__": {"rfla": "{"}}), "not JSON"),
        (lambda path: with_header(path, ours(format=9)), "format 9"),
        (lambda path: with_header(path, ours(names=[])), "class names"),
        (lambda path: with_header(path, ours(names=["x"] * 20_000)), "20000 class names"),
        (
            lambda path: with_header(
                path, ours() | {"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}
            ),
            "damaged",
        ),
    ],
)
def test_hostile_files(tmp_path, make, message):
    path = tmp_path / "hostile.safetensors"
    make(path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_metadata(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"detector": "fcos", "neck": {"width": 10**9}}, "neck.width"),
        ({"detector": "os.system"}, "detector"),
        (
            {"detector": "fcos", "head": {"width": 2048, "depth": 8}, "neck": {"width": 2048}},
            "parameters: at most",
        ),
        ({"detector": "fcos", "hed": {}}, "did you mean 'head'"),
        ({"detector": "fcos", "backbone": {"name": "/etc/passwd"}}, "backbone.name"),
        ({"detector": "fcos", "loss": float("nan")}, "loss"),
    ],
)
def test_a_model_that_asks_for_the_absurd(model, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_from_metadata({"model": model, "names": ["a"]})
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit(net, tmp_path):
    state = dict(net.state_dict())
    state["head.conv_cls.bias"] = torch.zeros(5)
    del state["head.conv_reg.bias"]
    state["extra"] = torch.zeros(1)
    save_weights(tmp_path / "x.safetensors", state, metadata_of(net, ["ship", "car"]))
    with pytest.raises(
        WeightsError,
        match=r"1 missing.*conv_reg.bias.*1 unexpected.*extra.*1 misshaped.*conv_cls.bias",
    ) as caught:
        load_model(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: torch.full_like(value, torch.nan), "not finite in head.conv_cls.weight"),
        (lambda value: torch.full_like(value, torch.inf), "not finite"),
        (lambda value: value.to(torch.int32), "1 mistyped .*int32 for torch.float32"),
        (lambda value: value.to(torch.complex64), "1 mistyped"),
    ],
)
def test_numbers_that_are_no_weights(net, tmp_path, change, message):
    state = net.state_dict()
    state["head.conv_cls.weight"] = change(state["head.conv_cls.weight"])
    save_weights(tmp_path / "x.safetensors", state, metadata_of(net, ["ship", "car"]))
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "x.safetensors")


def test_names_cannot_steer_a_terminal(net, tmp_path):
    save_weights(
        tmp_path / "x.safetensors",
        net.state_dict(),
        metadata_of(net, ["red\x1b[31m", "two\nlines"]),
    )
    assert load_model(tmp_path / "x.safetensors")[1]["names"] == [r"red\x1b[31m", r"two\nlines"]


def bomb(depth=40):
    """A few lines whose aliases stand for 9**40 values."""
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, depth)]
    return "\n".join(
        [*lines, f"neck: {{width: *x{depth - 1}}}", f"assigner: {{topk: *x{depth - 1}}}"]
    )


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        "neck: &a {width: *a}",
        "a: [",
        "- 1",
        "3",
        "x" * 100_000,
        "[" * 5000,
        "detector: fcos\nneck: {width: 1e30}",
    ],
)
def test_hostile_model_yaml(tmp_path, text):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(RflaError) as caught:
        build_detector(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def tiny_file(path):
    save_weights(
        path, {"a": torch.arange(4.0), "b": torch.tensor(7)}, {"format": 1, "names": ["x"]}
    )
    return path


def test_every_flipped_bit_is_noticed(tmp_path):
    """Also in the header: names of classes and normalisation are as good as weights."""
    path = tiny_file(tmp_path / "x.safetensors")
    content = path.read_bytes()
    assert load_weights(path)[0]["b"] == 7
    for place in range(len(content)):
        for bit in (1, 32, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(WeightsError) as caught:
                load_weights(path)
            assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_files_from_before_the_digest_still_load(net, saved):
    from safetensors.torch import save_file

    state, metadata = load_weights(saved)
    save_file(state, saved, {"rfla": json.dumps(metadata)})
    again, _ = load_model(saved)
    assert torch.equal(again.state_dict()["head.conv_cls.bias"], state["head.conv_cls.bias"])


def test_the_digest_by_hand(tmp_path):
    """SHA-256 of the text, then name, type, shape and bytes of each tensor by name."""
    import hashlib

    from rfla.models.weights import digest

    parts = b'{"a": 1}', b"a torch.float32 (2,)\n", struct.pack("<2f", 0, 1), b"b torch.bool ()\n"
    expected = hashlib.sha256(b"".join(parts) + b"\x01").hexdigest()
    tensors = {"b": torch.tensor(True), "a": torch.arange(2.0)}
    assert digest(tensors, '{"a": 1}') == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "but an empty file"),
        (b"<!DOCTYPE html><html>sign in</html>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "rfla import"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"not a safetensors file {message}|{message}"):
        read_metadata(path)


def test_a_small_file_that_describes_a_large_network(net, tmp_path, monkeypatch):
    """400 M parameters are refused by their shapes, before one of them is drawn."""
    large = build_detector("fcos_p2", 2, settings=SMALL).config.model_dump(mode="json")
    large["head"] |= {"width": 1536, "depth": 8}
    path = tmp_path / "x.safetensors"
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | {"model": large})
    monkeypatch.setattr("rfla.models.weights.build_from_config", None)
    with pytest.raises(WeightsError, match="does not fit the model"):
        load_model(path)


def test_as_many_classes_as_fit_in_memory(net, tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, net.state_dict(), metadata_of(net, ["x"] * 9_999))
    with pytest.raises(WeightsError, match="9999 class names; at most 2000"):
        load_model(path)
    with pytest.raises(ConfigError, match="2001 classes"):
        build_detector("fcos_p2", 2001, settings=SMALL)


def test_a_size_is_not_believed_beyond_reason(net, tmp_path):
    from rfla.cfg import load_config

    path = str(tmp_path / "x.safetensors")
    given = {"model": path, "source": "s"}
    for size, expected in ((256, 256), (2048, 2048)):
        save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | {"imgsz": size})
        assert load_config(given, mode="predict").imgsz == expected
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | {"imgsz": 16384})
    with pytest.raises(ConfigError, match=r"claims imgsz=16384; sizes above 2048 px"):
        load_config(given, mode="predict")
    assert load_config(given | {"imgsz": 4096}, mode="predict").imgsz == 4096


def test_what_a_weights_file_costs_is_told_at_its_own_size(net, tmp_path):
    from rfla.models.cost import cost

    path = str(tmp_path / "x.safetensors")
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | {"imgsz": 96})
    assert cost(path).imgsz == 96 and "trained on" not in cost(path).table()
    known = {"objects": {"px_99": 21.4, "px_max": 40.0}, "gsd": 0.3}
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | known)
    line = "objects of up to 40 px of the input, 99 % up to 21 px, 0.3 m a pixel (gsd)"
    assert line in cost(path, 64).table()
    known = {"objects": {"px_99": 21.4, "px_max": 3.0}}  # the largest is not below the most
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | known)
    assert "objects of up to 21 px of the input, 99 % up to 21 px" in cost(path, 64).table()
    save_weights(path, net.state_dict(), metadata_of(net, ["a", "b"]) | {"imgsz": 96})
    assert cost(path, 64).imgsz == 64
