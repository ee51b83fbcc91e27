"""Keys in words: kinds, values as people write them, and what a wrong key may have meant."""

from typing import Any, Literal

import pytest

from rfla.cfg import Config
from rfla.cfg.keys import ALIASES, keys_of, show, suggestions, type_words


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lr0", "number from 0 to 10"),
        ("momentum", "number from 0 to below 1"),
        ("time", "number above 0 or none"),
        ("epochs", "whole number of at least 1"),
        ("conf", "number from 0 to 1 or none"),
        ("cos_lr", "true/false"),
        ("resume", "true/false or text"),
        ("optimizer", "one of sgd, adamw"),
        ("lr_steps", "list of whole numbers"),
        ("normalize.mean", "list of 3 numbers"),
        ("classes", "list of whole numbers or text"),
        ("model", "text or none"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert keys_of(Config)[name].kind == kind


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (tuple[tuple[float, float], ...], "list of lists of 2 numbers"),
        (Literal["a", "b"], "one of a, b"),
        (int | None, "whole number or none"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert type_words(annotation) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (0.0001, "0.0001"),
        (1e-9, "1e-09"),
        ((8, 11), "[8,11]"),
        (((0.1, 0.2),), "[[0.1,0.2]]"),
        ("plain", "plain"),
        ("", "''"),
        ("two\nlines", r"'two\nlines'"),
        ("x" * 100, "x" * 57 + "..."),
        (list(range(1000)), "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,..."),
    ],
)
def test_values_as_typed(value: Any, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("learning_rate", "lr0"),  # another tool's name
        ("Batch-Size", "batch"),  # another tool's spelling of it
        ("topk", "assigner.topk"),  # the last part of a dotted key
        ("aug.topk", "assigner.topk"),  # the right key in the wrong section
        ("epoch", "epochs"),  # a slip
        ("asigner.decay", "assigner.decay"),
        ("Epochs", "epochs"),
        ("fliplrr", "aug.fliplr"),
    ],
)
def test_suggestions(word: str, first: str) -> None:
    assert suggestions(word, Config)[0].name == first


def test_no_suggestion_for_noise() -> None:
    assert suggestions("qqqqqq", Config) == []


def test_aliases_name_keys_that_exist() -> None:
    names = set(keys_of(Config)) | {"cfg"}
    assert set(ALIASES.values()) <= names, set(ALIASES.values()) - names
    assert not set(ALIASES) & set(keys_of(Config)), "a key cannot be an alias"
