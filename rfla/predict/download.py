"""Files behind http(s) addresses, by the standard library: fetched, run on, and thrown away."""

import http.client
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfla.data.image_files import IMAGE_SUFFIXES
from rfla.data.images import read_image
from rfla.data.pages import holds_several
from rfla.errors import DataError, one_line, printable
from rfla.predict.source_image import Reading, SourceImage, pages_of, picture
from rfla.predict.videos import SUFFIXES as VIDEO_SUFFIXES
from rfla.predict.videos import Video, is_video, is_video_content
from rfla.version import __version__

SCHEMES = ("http", "https")
LARGEST = 2 << 30  # bytes of a file
SILENCE = 30.0  # seconds without a byte
LONGEST = 3600.0  # seconds for a file
CHUNK = 1 << 20  # bytes


def is_address(text: str) -> bool:
    """Whether a source is written as an address, of any scheme."""
    return "://" in text


def require_http(address: str) -> None:
    """Refuse addresses of other schemes, and those without a host.

    Raises:
        DataError: With what is allowed.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme.lower() in SCHEMES and parts.hostname:
            return
    except ValueError:  # brackets that hold no IPv6 address
        pass
    raise DataError(f"source={address}: addresses begin with http:// or https:// and a host")


@dataclass(frozen=True)
class WebFile:
    """The image or video behind an address.

    Attributes:
        name: The address.
    """

    name: str

    @property
    def relative(self) -> Path:
        """The last part of the address: `a.png` of `http://host/x/a.png?size=2`."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.name).path)
        file = printable(path.replace("\\", "/").rstrip("/").rpartition("/")[2], keep="")
        return Path("download" if file in ("", ".", "..") else file.replace("\\", "_"))

    def expected(self, how: Reading) -> int:
        """Return 1."""
        return 1

    def images(self, how: Reading) -> Iterator[SourceImage]:
        """Fetch the file and yield its images; it is deleted behind the last one."""
        with tempfile.TemporaryDirectory(prefix="rfla") as folder:
            suffix = self.relative.suffix.lower()
            known = suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES
            file = Path(folder, f"file{suffix if known else ''}")
            try:
                fetch(self.name, file)
                yield from self._images(file, how)
            except DataError as error:
                yield picture(self, DataError(str(error).replace(str(file), self.name)))

    def _images(self, file: Path, how: Reading) -> Iterator[SourceImage]:
        with file.open("rb") as opened:
            head = opened.read(1024)
        if is_video(file) or is_video_content(head):
            yield from Video(self.name, self.relative, file).images(how)
        elif how.pages == "all" and holds_several(file):
            yield from pages_of(self, file, how)
        else:
            remarks: list[str] = []
            pixels = read_image(file, value_range=how.value_range, remarks=remarks)
            yield picture(self, pixels, remarks=tuple(remarks))


def fetch(address: str, file: Path) -> None:
    """Write what is behind an address into a file.

    Raises:
        DataError: No connection, no such file, too large, or too slow.
    """
    require_http(address)
    request = urllib.request.Request(address, headers={"User-Agent": f"rfla/{__version__}"})
    try:
        with _opener().open(request, timeout=SILENCE) as answer, file.open("wb") as target:
            _copy(answer, target)
    except urllib.error.HTTPError as error:
        said = f"{error.code} {one_line(error.reason)}".strip()
        raise DataError(f"{address}: the server says {said}") from None
    except urllib.error.URLError as error:
        raise DataError(f"{address}: cannot be reached ({one_line(error.reason)})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{address}: cannot be fetched ({one_line(error)})") from None


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https alone, also behind a redirection."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _copy(answer: Any, target: Any) -> None:
    """Copy an answer into a file, within the bounds.

    Raises:
        DataError: Too large or too slow.
    """
    began, size = time.monotonic(), 0
    while chunk := answer.read1(CHUNK):
        size += len(chunk)
        if size > LARGEST:
            raise DataError(f"{answer.url}: larger than {LARGEST >> 30} GiB; download it first")
        if time.monotonic() - began > LONGEST:
            raise DataError(f"{answer.url}: not there after {LONGEST / 60:.0f} minutes")
        target.write(chunk)
    stated = answer.headers.get("Content-Length", "")
    if stated.isdigit() and size < int(stated):
        raise DataError(f"{answer.url}: the connection was lost ({size} of {stated} bytes)")
