"""The grammar of the command line: `key=value` tokens in any order, however a shell splits them.

    epochs=3   epochs = 3   epochs= 3   --epochs 3   --epochs=3   imgsz=640,   lr_steps=[8, 11]
    cos_lr

Values are typed as Python literals where they are some (`none`, `true`, `false` in any case), else
kept as text; keys whose type is text keep theirs as typed.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from rfla.cfg.base import accepts
from rfla.cfg.keys import Key, example_of, keys_of, sections_of, show, suggestions
from rfla.cfg.setting_layers import unknown_key
from rfla.errors import ConfigError

MAX_VALUE = 10_000  # characters; `ast.literal_eval` is only safe on short text
_WORDS = {"none": None, "null": None, "true": True, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_ASSIGNMENT = re.compile(r"-{0,2}[A-Za-z_][\w.-]*=")
_VERBATIM = ("name", "project")  # a run may be called `none` or `007`


def parse_tokens(tokens: Sequence[str], schema: type[BaseModel]) -> dict[str, Any]:
    """Read the tokens after the verb.

    Args:
        tokens: words as the shell hands them over.
        schema: the keys that exist for the verb.

    Returns:
        Dotted keys with typed values; of a key that comes twice the last one.

    Raises:
        ConfigError: an unknown key, a missing value or key, an open bracket. Types and ranges are
            checked later, when the schema is filled.
    """
    keys = keys_of(schema)
    settings: dict[str, Any] = {}
    before = ""  # the token before, where its value is text
    for word, text in _pairs(tokens, schema):
        name = word.strip()
        if text is None:
            settings[name] = _bare(name, schema, before)
            continue
        if not name:
            raise ConfigError(f"a key is missing before '={show(text) if text else ''}'")
        key = keys.get(name)
        if (
            key is None
            and name not in sections_of(schema)
            and not (name == "cfg" and "model" in schema.model_fields)
        ):
            raise ConfigError(unknown_key(name, schema))
        if not text:
            raise ConfigError(f"{name} needs a value{f': {example_of(key)}' if key else ''}")
        settings[name] = parse_value(text, key)
        takes_text = name == "cfg" or (key is not None and accepts(key.annotation, str))
        before = f"{name}={text}" if takes_text else ""
    return settings


def parse_value(text: str, key: Key | None = None) -> Any:
    """Type one value: none, true, false, a Python literal, a list of bare words, or text."""
    if len(text) > MAX_VALUE:
        raise ConfigError(
            f"{key.name if key else 'a value'}={show(text)}: longer than {MAX_VALUE} characters"
        )
    plain = text.strip()
    if key is not None and accepts(key.annotation, str):
        return _text_value(plain, key)
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    try:
        value = ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _bare_words(plain)
    return value if isinstance(value, int | float | str | list | tuple) else plain


def _text_value(plain: str, key: Key) -> Any:
    word = plain.lower()
    if (
        key.name in _VERBATIM
        or word not in _WORDS
        or not accepts(key.annotation, type(_WORDS[word]))
    ):
        quoted = len(plain) >= 2 and plain[0] == plain[-1] and plain[0] in "'\""
        return plain[1:-1] if quoted else plain
    return _WORDS[word]


def _bare_words(plain: str) -> Any:
    """`[ship, car]` without quotes is a list; anything else that is no literal is text."""
    if plain[:1] in ("[", "(") and plain.endswith(_CLOSING[plain[0]]):
        parts = [part.strip() for part in plain[1:-1].split(",")]
        # a bracket in a list of words is a part of a word
        return [part if part[0] in _CLOSING else parse_value(part) for part in parts if part]
    return plain


def _bare(word: str, schema: type[BaseModel], before: str) -> bool:
    """A word without `=`: true for a yes/no key, else an error that says what is missing."""
    keys = keys_of(schema)
    key = keys.get(word)
    if key is not None and accepts(key.annotation, bool):
        return True
    if key is not None:
        raise ConfigError(f"{word} needs a value: {example_of(key)}")
    named = keys.get(f"{word}.name")
    if named is not None:
        raise ConfigError(f"{word} needs a value: {word}={show(named.default)}")
    if before:
        name, _, value = before.partition("=")
        quoted = f"{name}='{show(f'{value} {word}')}'"
        raise ConfigError(
            f"unexpected '{show(word)}' after {show(before)}; quote a value with a space: {quoted}"
        )
    near = suggestions(word, schema) if re.fullmatch(r"[\w.]+", word) else []
    if near:
        raise ConfigError(f"unexpected '{show(word)}'; did you mean {example_of(near[0])}?")
    raise ConfigError(
        f"unexpected '{show(word)}'; settings are key=value (quote a pattern: source='dir/*.png')"
    )


def _pairs(tokens: Sequence[str], schema: type[BaseModel]) -> Iterator[tuple[str, str | None]]:
    """Split the repaired tokens at their first `=`; the value is None for a bare word."""
    for token in _closed_brackets(_joined_equals(_undashed(list(tokens), schema))):
        word, equals, text = token.partition("=")
        if not token.strip(", "):  # a comma on its own
            continue
        yield word.rstrip(","), (text.rstrip(",").strip() if equals else None)


def _undashed(tokens: list[str], schema: type[BaseModel]) -> Iterator[str]:
    """`--key value` and `--key=value` become `key=value`; a yes/no key may stand alone."""
    keys = keys_of(schema)
    rest = iter(range(len(tokens)))
    for i in rest:
        token = tokens[i]
        if not token.startswith("--") or len(token) < 3:
            yield token
            continue
        word, equals, text = token[2:].partition("=")
        word = word.replace("-", "_")
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        if equals or following is None or following.startswith("="):
            yield word + equals + text
        elif _is_value_of(following, keys.get(word)):
            next(rest)
            yield f"{word}={following}"
        else:
            yield word


def _is_value_of(token: str, key: Key | None) -> bool:
    """Tell whether the token after `--key` is its value, or the next setting."""
    if token.startswith("--") or _ASSIGNMENT.match(token):
        return False
    only_yes_no = key is not None and key.kind in ("true/false", "true/false or none")
    return not only_yes_no or token.lower() in _WORDS


def _joined_equals(tokens: Iterator[str]) -> Iterator[str]:
    """`a = b`, `a= b` and `a =b` become `a=b`."""
    held: str | None = None
    for token in tokens:
        if held is None:
            held = token
        elif (token.startswith("=") and "=" not in held) or (
            _ends_open(held) and not _ASSIGNMENT.match(token)
        ):
            held += token
        else:
            yield held
            held = token
    if held is not None:
        yield held


def _ends_open(token: str) -> bool:
    return token.endswith("=") and token.count("=") == 1 and len(token) > 1


def _closed_brackets(tokens: Iterator[str]) -> Iterator[str]:
    """`lr_steps=[8,` `11]` become one token.

    Only a value that begins with a bracket is one that can be open.
    """
    for token in tokens:
        word, _, text = token.partition("=")
        while text[:1] in _CLOSING and _is_open(text):
            more = next(tokens, None)
            if more is None:
                raise ConfigError(f"{word}={show(text)}: the bracket is not closed")
            text, token = f"{text} {more}", f"{token} {more}"
        yield token


def _is_open(text: str) -> bool:
    opened = sum(text.count(bracket) for bracket in _CLOSING)
    return opened > sum(text.count(bracket) for bracket in _CLOSING.values())
