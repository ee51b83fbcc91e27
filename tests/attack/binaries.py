"""Hostile binary files: images, weights, and checkpoints of other tools."""

import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from harness import Case
from hostile import change_bytes, change_document
from PIL import Image

from rfla.data.images import image_size, read_image
from rfla.models.checkpoint_file import read_checkpoint

# Images


def _images() -> dict[str, bytes]:
    """A small file of each format, by suffix."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("png", "PNG", {}),
        ("jpg", "JPEG", {"exif": exif}),
        ("tif", "TIFF", {}),
        ("tiff", "TIFF", {"compression": "tiff_lzw"}),
        ("webp", "WEBP", {}),
        ("gif", "GIF", {"save_all": True, "append_images": [picture] * 3}),
        ("bmp", "BMP", {}),
        ("ppm", "PPM", {}),
        ("jp2", "JPEG2000", {}),
    ]
    files = {}
    for suffix, format, options in kinds:
        file = io.BytesIO()
        picture.save(file, format, **options)
        files[suffix] = file.getvalue()
    return files


IMAGES = _images()


def make_image(random: Random) -> Case:
    suffix = random.choice(list(IMAGES))
    data = IMAGES[suffix]
    if random.random() < 0.2:
        data = data[: random.randrange(len(data))]
    else:
        data = change_bytes(random, data, random.choice([1, 2, 4, 8, 30]))
    other = random.choice(list(IMAGES))
    path = f"x.{suffix if random.random() < 0.8 else other}"

    def read(directory: Path) -> None:
        image_size(directory / path)
        read_image(directory / path)

    return Case({path: data}, call=read)


# Weights of ours


def make_weights_of(weights: bytes) -> Callable[[Random], Case]:
    """Return a maker of cases from a sound weights file."""
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    body = weights[8 + length :]

    def make(random: Random) -> Case:
        kind = random.random()
        if kind < 0.6:
            data = _with_metadata(random, header, body)
        elif kind < 0.75:
            some = {key: header[key] for key in list(header)[:6]}
            changed = change_document(random, some)
            table = {**header, **changed} if isinstance(changed, dict) else {}
            data = _safetensors(json.dumps(table).encode(), body)
        elif kind < 0.85:
            stated = random.choice([0, 1, 100, 2**20, 2**31, 2**40, 2**63, 2**64 - 1])
            data = struct.pack("<Q", stated) + weights[8:2000]
        elif kind < 0.95:
            data = change_bytes(random, weights[: 8 + length], random.randint(1, 8)) + body
        else:
            data = weights[: random.randrange(len(weights))]
        source = ("predict", "model=w.safetensors", "source=x.png", "save=false", "device=cpu")
        command = source if random.random() < 0.3 else ("info", "model=w.safetensors")
        return Case({"w.safetensors": data, "x.png": IMAGES["png"]}, command)

    return make


def _safetensors(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def _with_metadata(random: Random, header: dict[str, Any], body: bytes) -> bytes:
    """A weights file with other metadata."""
    metadata = header["__metadata__"]
    key = next(key for key, text in metadata.items() if text.startswith("{"))
    text = json.dumps(change_document(random, json.loads(metadata[key])))
    if random.random() < 0.1:
        text = random.choice(["[" * 100_000, "[" * 3000 + "]" * 3000, "1" * 5000, "NaN", ""])
    changed = {**header, "__metadata__": {**metadata, key: text}}
    return _safetensors(json.dumps(changed).encode("utf-8", "surrogatepass"), body)


# Checkpoints of other tools: pickles within zip archives


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def _evil() -> list[Any]:
    """What a checkpoint must not be able to call."""
    return [
        Call(os.system, "touch canary"),
        Call(eval, "open('canary', 'w')"),
        Call(exec, "open('canary', 'w')"),
        Call(subprocess.call, ["touch", "canary"]),
        Call(getattr, "x", "upper"),
        Call(np.memmap, "canary", "u1", "w+", 0, 4),
        Call(np.fromfile, "/etc/passwd"),
        Call(np.ndarray, (10**13,), "u1"),
        Call(np.ndarray, (4,), "O", b"A" * 32),  # pointers of the file's choice
        Call(np.dtype, {"names": ["a"], "formats": ["O"], "offsets": [8]}),
        Call(bytearray, 10**12),
    ]


# Pickles by hand: a tuple nested 100,000 deep, and a key whose hash takes 2^60 steps.
DEEP = b"\x80\x02)" + b"\x85" * 100_000 + b"."
DOUBLED = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."


def _checkpoints() -> list[bytes]:
    """A sound checkpoint first, then hostile ones, as archives of torch and as plain pickles."""
    state = {"bbox_head.conv_cls.weight": torch.zeros(2, 8, 3, 3)}
    state["backbone.conv1.weight"] = torch.zeros(4, 3, 7, 7)
    meta = {"CLASSES": ("car", "ship"), "config": "x" * 100, "score": np.float64(0.3)}
    files = []
    for content in [meta, *_evil()]:
        file = io.BytesIO()
        torch.save({"state_dict": state, "meta": content}, file)
        files.append(file.getvalue())
        files.append(pickle.dumps({"state_dict": content}, 2))
    files += [
        DEEP,
        DOUBLED,
        rewrite(files[0], _instead(DEEP)),
        rewrite(files[0], _instead(DOUBLED)),
    ]
    return files


def _instead(pickled: bytes) -> Callable[[str, bytes], bytes]:
    """Return a change that puts another pickle in the place of that of an archive."""
    return lambda name, part: pickled if name.endswith("data.pkl") else part


def rewrite(
    archive: bytes,
    change: Callable[[str, bytes], bytes],
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a zip archive with its parts changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


CHECKPOINTS = _checkpoints()


def import_of(data: bytes) -> Case:
    """Read a checkpoint as `rfla import` does, before it looks for the model of the weights."""
    return Case({"x.pth": data}, call=lambda directory: read_checkpoint(directory / "x.pth"))


def make_checkpoint(random: Random) -> Case:
    data = CHECKPOINTS[0] if random.random() < 0.5 else random.choice(CHECKPOINTS)
    if random.random() < 0.15:
        return import_of(data)
    if not data.startswith(b"PK"):
        return import_of(change_bytes(random, data))

    def change(name: str, part: bytes) -> bytes:
        if name.endswith("data.pkl"):
            return change_bytes(random, part, random.choice([1, 2, 3, 6]))
        return random.choice([b"", part[:3], part * 3]) if random.random() < 0.1 else part

    method = random.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED])
    return import_of(rewrite(data, change, method))
