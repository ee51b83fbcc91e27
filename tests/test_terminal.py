"""Names from files are shown in a terminal, and do not steer it."""

import io
import logging

import pytest
from rich.table import Table
from rich.text import Text

from rfla.engine.console import CleanConsole
from rfla.errors import DataError, counted, for_terminal, nearest, printable
from rfla.terminal import fail, log_to_stderr, say

HOSTILE = [
    "\x1b[2J\x1b[31mred",  # clear the screen, colour
    "\x1b]0;title\x07",  # the title of the window
    "a\rb",  # write over the line
    "\x9b31m",  # the one-byte form of ESC [
    "\u202egnp.exe",  # reverse the direction of writing
    "\ud800",  # half a surrogate pair: no output encoding has it
    "[/red]",  # rich's own markup
    "[link=https://example.com]x[/link]",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ship", "ship"),
        ("Schiff ü 船", "Schiff ü 船"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\ud800", r"\ud800"),
        ("\u202e", r"\u202e"),
        ("a\rb", r"a\rb"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("name", HOSTILE)
def test_every_way_to_the_terminal(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged for its report, and its workers cannot send half a surrogate pair
    monkeypatch.setattr(logging.getLogger("rfla"), "propagate", False)
    log_to_stderr()
    say(name)
    fail(str(DataError(name)), 2, [])
    logging.getLogger("rfla.data").warning("image skipped: %s", name)
    captured = capsys.readouterr()
    assert captured.out == f"{printable(name)}\n"
    assert captured.err == f"error: {printable(name)}\nimage skipped: {printable(name)}\n"
    captured.out.encode()  # any output encoding that knows Unicode can write it


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_of_a_run(name: str, terminal: bool) -> None:
    table = Table("class", title=name)
    table.add_row(name)
    for thing in (name, Text(name, style="red"), table):
        page = io.StringIO()
        console = CleanConsole(
            file=page, width=200, markup=False, highlight=False, force_terminal=terminal
        )
        console.print(thing)
        shown = page.getvalue()
        shown.encode()
        if name.startswith("["):
            assert name in shown  # no markup
        elif terminal:  # with colours of our own round it
            assert name not in shown
        else:
            assert printable(shown) == shown


def test_a_line_of_thousands_of_letters_loses_its_middle() -> None:
    """A file may name an image, a class or a key with 100,000 letters."""
    text = "first\n" + "x" * 100_000 + " (first: a.json:3)\x1b"
    first, second = for_terminal(text).split("\n")
    assert first == "first" and len(second) < 1000
    assert second.startswith("xxx") and second.endswith(" (first: a.json:3)\\x1b")
    assert for_terminal("a" * 1000) == "a" * 1000


def test_words_are_compared_with_thousands_of_others_in_no_time() -> None:
    many = [f"name {number}" for number in range(1_000_000)]
    assert nearest("name 5", many)[0] == "name 5"
    assert nearest("x" * 100_000, ["x" * 100_000]) == []


@pytest.mark.parametrize("number, text", [(0, "0 boxes"), (1, "1 box"), (1360, "1,360 boxes")])
def test_counts_agree_with_their_noun(number: int, text: str) -> None:
    assert counted(number, "box", "boxes") == text
