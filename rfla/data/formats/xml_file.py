"""Read an XML file by events, with lines, and without what a hostile one may declare."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from xml.parsers import expat

from rfla.errors import DataError
from rfla.files import read_regular


class Handler(Protocol):
    """What is told of the elements of a file, in their order."""

    def start(self, tag: str, attributes: Mapping[str, str], line: int) -> None:
        """An element begins."""
        ...

    def text(self, piece: str) -> None:
        """A piece of the text of an element."""
        ...

    def end(self) -> None:
        """The innermost element ends."""
        ...


def parse_xml(path: Path, handler: Handler) -> None:
    """Read a file from its beginning to its end (ElementTree does not keep lines).

    Raises:
        DataError: With the line, where it stops being XML; an entity declaration; what the handler
            raises.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda tag, attributes: handler.start(
        tag, attributes, parser.CurrentLineNumber
    )
    parser.EndElementHandler = lambda _: handler.end()
    parser.CharacterDataHandler = handler.text
    parser.EntityDeclHandler = _refusal(path)
    try:
        parser.Parse(read_regular(path), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid XML ({expat.errors.messages[error.code]})"
        ) from None
    except (ValueError, LookupError) as error:  # LookupError: an encoding that Python does not know
        raise DataError(f"{path}: cannot be read ({error})") from None


def _refusal(path: Path) -> Callable[..., None]:
    """Entities multiply (a billion laughs), or name other files."""

    def refuse(*_: object) -> None:
        raise DataError(f"{path}: declares an XML entity; refused")

    return refuse
