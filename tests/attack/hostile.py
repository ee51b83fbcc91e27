"""Values, documents and bytes that hurt a reader; everything follows from a seeded `Random`."""

import json
import struct
from random import Random
from typing import Any

NUMBERS = [
    0, -0.0, -1, 1, 0.5, 1e-320, 1e308, -1e308, 1e15, 1e300,
    2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
TEXTS = [
    "", " ", "a", "\x00", "a\x00b", "\n", "\r\n", "a" * 5000, "nan", "1e9999", "{}", "%s%n",
    "\x1b[31mX\x1b[0m", "\x1b]0;title\x07", "\u202eabc", "\ud800", "\U0001f4a9",
    "../../x", "/etc/passwd", "C:\\x", "~nobody42/x", "-rf", "x" * 300, "a/../../b",
    "[/red]", "[bold", "=cmd|' /C calc'!A0", "</script><script>alert(1)</script>", "${title}",
]  # fmt: skip
OTHERS: list[Any] = [
    None, True, False, [], {}, [[]], [None], {"a": None}, [1, 2, 3], ["1", "2", "3", "4"],
]  # fmt: skip
# What a number may look like in a line of text.
WRITTEN_NUMBERS = [
    "3", "10", "0.5", "-1", "nan", "inf", "1e308", "9" * 400, "0x10", "", "a", "1_0", "\u0663",
    "1e5", "2147483648", "9223372036854775808", " ", "+5", "-0", "1,5",
]  # fmt: skip
# What YAML makes more of than text.
YAML_VALUES = [
    ".nan", ".inf", "-.inf", "1e400", "1e308", "0", "-1", "9" * 30, "9" * 5000, "0b1" + "0" * 100,
    "1:2:3:4:5:6:7:8:9:0", "!!python/object/apply:os.system ['touch canary']",
    "!!python/name:os.system", "!!binary aGVsbG8=", "!!set {a, b}", "!!timestamp 2001-99-99",
    "2001-13-45", "!!float x", "!!int 1e5", "!!omap [a: 1]", "!x y", "&a [1]", "*a", "&a [*a]",
    "{<<: {a: 1}}", "[" * 60 + "]" * 60, "[" * 3000, "{a: " * 30 + "1" + "}" * 30, "'", '"',
    "|\n  x", "? x", "- x", "%YAML 1.1", "---\na: 1\n---\nb: 2", "\t- 1", "@x", "`x", "yes", "~",
    "[]", "{}", '"\\ud800"', '"\\x00"', '"\\U00110000"', "~nobody42/x",
]  # fmt: skip


def value(random: Random) -> Any:
    """Return a value that no reader expects."""
    kind = random.random()
    if kind < 0.4:
        return random.choice(NUMBERS)
    if kind < 0.7:
        return random.choice(TEXTS)
    if kind < 0.9:
        return random.choice(OTHERS)
    return random.uniform(-1e4, 1e4)


def yaml_value(random: Random) -> str:
    """Return the YAML text of a value that no reader expects."""
    return random.choice(YAML_VALUES) if random.random() < 0.6 else json.dumps(value(random))


def change_document(random: Random, document: Any) -> Any:
    """Return a copy of a JSON-like document that differs in 1 to 6 places."""
    document = json.loads(json.dumps(document))
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        parent, key = _place(random, document)
        if parent is None:
            return value(random)
        kind = random.random()
        if kind < 0.7:
            parent[key] = value(random)
        elif kind < 0.82:
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, parent[key])
        else:
            parent[random.choice([*TEXTS, "id", "name", "bbox", "image_id"])] = value(random)
    return document


def _place(random: Random, document: Any) -> tuple[Any, Any]:
    """Choose a container within the document and a key or index of it."""
    parent, key, at = None, None, document
    for _ in range(random.randint(1, 6)):
        if not at or not isinstance(at, (dict, list)):
            break
        parent = at
        key = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
        at = parent[key]
    return parent, key


def to_bytes(text: str) -> bytes:
    """Encode a text, half surrogate pairs included."""
    return text.encode("utf-8", "surrogatepass")


def change_json(random: Random, document: Any) -> bytes:
    """Return a JSON file with changed values, changed bytes, or one value that is far too large."""
    kind = random.random()
    if kind < 0.8:
        return to_bytes(json.dumps(change_document(random, document)))
    text = json.dumps(document)
    if kind < 0.9:
        return change_bytes(random, text.encode())
    # Put a monster in the place of the value of some key.
    monster = random.choice(
        ["[" * 100_000, "[" * 2000 + "]" * 2000, "9" * 5000, "1e999999", '"\\ud800"', "-Infinity"]
    )
    places = [at + 2 for at in range(len(text)) if text.startswith('":', at)]
    start = random.choice(places)
    ends = [text.find(letter, start) for letter in ",]}"]
    return (text[:start] + monster + text[min(end for end in ends if end >= 0) :]).encode()


def change_bytes(random: Random, data: bytes, changes: int | None = None) -> bytes:
    """Return a copy with some bytes changed, cut out or put in; the first 400 more often."""
    changed = bytearray(data)
    for _ in range(changes or random.choice([1, 1, 2, 4, 16])):
        if not changed:
            break
        within = min(len(changed), 400) if random.random() < 0.5 else len(changed)
        at = random.randrange(within)
        kind = random.random()
        if kind < 0.4:
            changed[at] = random.randrange(256)
        elif kind < 0.55:
            number = random.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 65535, 100_000])
            changed[at : at + 4] = struct.pack(random.choice("<>") + "I", number)
        elif kind < 0.7:
            del changed[at : at + random.choice([1, 4, 100, len(changed)])]
        elif kind < 0.85:
            changed[at:at] = random.randbytes(random.choice([1, 4, 64]))
        else:
            start = random.randrange(len(changed))
            changed[at : at + 32] = changed[start : start + 32]
    return bytes(changed)


def change_rows(random: Random, rows: list[list[str]], separator: str) -> bytes:
    """Return a table as text in which some fields are odd, missing or too many."""
    rows = [list(row) for row in rows]
    for _ in range(random.choice([1, 1, 2, 4])):
        row = random.choice([row for row in rows if row] or [["x"]])
        at = random.randrange(len(row))
        kind = random.random()
        if kind < 0.6:
            row[at] = random.choice(WRITTEN_NUMBERS)
        elif kind < 0.75:
            row[at] = random.choice(TEXTS)
        elif kind < 0.85:
            del row[at]
        else:
            row.insert(at, random.choice(WRITTEN_NUMBERS))
    return to_bytes("\n".join(separator.join(row) for row in rows) + "\n")
