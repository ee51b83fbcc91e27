"""The grammar of the command line: what shells and fingers do to `key=value`."""

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg import Config
from rfla.cfg.tokens import parse_tokens
from rfla.errors import ConfigError


def parse(line: str) -> dict[str, Any]:
    return parse_tokens(shlex.split(line), Config)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("epochs=3 lr0=.1 amp=False", {"epochs": 3, "lr0": 0.1, "amp": False}),
        # spaces round the sign, in all four ways
        ("epochs = 3 batch= 4 imgsz =640", {"epochs": 3, "batch": 4, "imgsz": 640}),
        # brackets that the shell took apart, with and without spaces round the sign
        ("lr_steps=[8, 11] cos_lr", {"lr_steps": [8, 11], "cos_lr": True}),
        ("assigner.topk = [3, 1] , epochs=1", {"assigner.topk": [3, 1], "epochs": 1}),
        ("classes=[car,(other)]", {"classes": ["car", "(other)"]}),
        ("freeze=[backbone, 'neck']", {"freeze": ["backbone", "neck"]}),
        # options as other tools have them
        ("--epochs 3 --lr0 -0.01 --batch=4", {"epochs": 3, "lr0": -0.01, "batch": 4}),
        (
            "--cos-lr --amp false --plots epochs=1",
            {"cos_lr": True, "amp": False, "plots": True, "epochs": 1},
        ),
        ("--resume --epochs 3", {"resume": True, "epochs": 3}),
        ("--resume runs/train", {"resume": "runs/train"}),
        ("--amp bf16 --show-labels --cos_lr", {"amp": "bf16", "show_labels": True, "cos_lr": True}),
        # trailing commas, as pasted from Python calls
        ("epochs=3, batch=2, device=0,", {"epochs": 3, "batch": 2, "device": "0"}),
        # bare yes/no keys, also those that may be text or none
        ("cos_lr resume show_labels", {"cos_lr": True, "resume": True, "show_labels": True}),
        # text stays as typed
        (
            "name=None project=007 source=a=b.png",
            {"name": "None", "project": "007", "source": "a=b.png"},
        ),
        ("source=dir/a[1].png device=0,1", {"source": "dir/a[1].png", "device": "0,1"}),
        ("source='two words.png' split=1", {"source": "two words.png", "split": "1"}),
        ("model=none data=NULL conf=None", {"model": None, "data": None, "conf": None}),
        # numbers in other notations
        ("epochs=1e2 seed=1_000", {"epochs": 100.0, "seed": 1000}),
        # a section's bare word, nested keys, tuples
        (
            "assigner=rfla aug.fliplr=0 assigner.topk=(3,1)",
            {"assigner": "rfla", "aug.fliplr": 0, "assigner.topk": (3, 1)},
        ),
        # the last of two wins, as in every other tool
        ("epochs=3 epochs=5", {"epochs": 5}),
        ("cfg=my.yaml", {"cfg": "my.yaml"}),
    ],
)
def test_reads(line: str, expected: dict[str, Any]) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("epochs", ["epochs needs a value", "epochs=12"]),
        ("epochs=", ["epochs needs a value", "epochs=12"]),
        ("epochs= batch=2", ["epochs needs a value"]),  # the next setting is not its value
        ("assigner", ["assigner needs a value", "assigner=rfla"]),
        ("=5", ["a key is missing before '=5'"]),
        ("=", ["a key is missing before '='"]),
        ("cos_lrr", ["unexpected 'cos_lrr'", "cos_lr=true"]),
        ("lr_steps=[8, 11", ["lr_steps=[8, 11", "not closed"]),
        ("a.png b.png", ["unexpected 'a.png'", "quote a pattern"]),
        ("-b 2", ["unexpected '-b'"]),
        ("--", ["unexpected '--'"]),
        # unknown keys: by another tool's name, by the last part, by spelling; each with its default
        ("learning_rate=1", ["'learning_rate'", "lr0 (default 0.005)"]),
        ("--batch-size 4", ["'batch_size'", "batch (default 2)"]),
        ("weights=x.pt", ["'weights'", "model"]),
        ("config=x.yaml", ["'config'", "cfg=FILE"]),
        ("confidence=.3", ["conf (default none)"]),
        ("gpu=0", ["device (default auto)"]),
        ("topk=3", ["assigner.topk (default [3,1])"]),
        ("fliplr=1", ["aug.fliplr (default 0.5)"]),
        ("epoch=1", ["epochs (default 12)"]),
        ("assigner.tokp=3", ["assigner.topk (default [3,1])"]),
        ("xyzzy=1", ["unknown key 'xyzzy'", "rfla cfg"]),
        ("seed=" + "9" * 20_000, ["longer than 10000 characters"]),
    ],
)
def test_refuses_in_one_line(line: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message


KEYS: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(-5, 10**6),
    "lr0": st.floats(-10, 10),
    "cos_lr": st.booleans(),
    "conf": st.none() | st.floats(0, 1),
    "lr_steps": st.lists(st.integers(0, 50), min_size=1, max_size=4),
    "assigner.topk": st.lists(st.integers(1, 9), min_size=2, max_size=3),
    "name": st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.\-]{0,8}", fullmatch=True),
}
SETTINGS = st.lists(st.sampled_from(sorted(KEYS)), unique=True).flatmap(
    lambda names: st.tuples(
        *(KEYS[name].map(lambda value, name=name: (name, value)) for name in names)
    )
)
STYLES = st.sampled_from(["k=v", "k = v", "k= v", "k =v", "k=v,", "--k=v", "--k v", "--k = v"])


@given(SETTINGS, st.data())
@settings(max_examples=150, deadline=None)
def test_any_spacing_means_the_same(
    pairs: tuple[tuple[str, Any], ...], data: st.DataObject
) -> None:
    """However the settings are spaced, they are read as what they were made from."""
    line = []
    for name, value in pairs:
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        line.append(
            data.draw(STYLES).replace("k", name, 1).replace("v", text, 1)
            if name != "name"
            else f"{name}={text}"
        )
    assert parse_tokens(" ".join(line).split(), Config) == dict(pairs)


WORDS = st.text(max_size=12) | st.sampled_from(
    [
        "=",
        "epochs",
        "epochs=",
        "=3",
        "--epochs",
        "--",
        "-",
        "[",
        "lr_steps=[",
        "]",
        ",",
        "cos_lr",
        "assigner",
        "aug=[(",
    ]
)


@given(st.lists(WORDS, max_size=6))
@settings(max_examples=300, deadline=None)
def test_never_anything_but_a_config_error(tokens: list[str]) -> None:
    try:
        parsed = parse_tokens(tokens, Config)
    except ConfigError as error:
        assert len(str(error).splitlines()) <= 1
        assert len(str(error)) < 1000
    else:
        assert all(isinstance(name, str) for name in parsed)
