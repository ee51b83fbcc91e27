"""Addresses: fetched within bounds, from http alone, and each failure is one line."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import rfla.predict.download as download
from rfla.errors import DataError
from rfla.predict.download import WebFile
from rfla.predict.source_image import Reading, SourceImage

PNG = cv2.imencode(".png", np.full((6, 9, 3), 50, np.uint8))[1].tobytes()


def gif() -> bytes:
    import io

    first, second = (Image.new("RGB", (5, 4), (shade, 0, 0)) for shade in (10, 200))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/a.png": (200, {}, PNG),
    "/b.gif": (200, {}, gif()),
    "/": (200, {}, PNG),
    "/page.png": (200, {}, b"<!doctype html><html>hello</html>"),
    "/moved.png": (302, {"Location": "/a.png"}, b""),
    "/local.png": (302, {"Location": "file:///etc/hostname"}, b""),
    "/ftp.png": (302, {"Location": "ftp://127.0.0.1/x.png"}, b""),
    "/round.png": (302, {"Location": "/round.png"}, b""),
    "/short.png": (200, {"Content-Length": "99999"}, PNG),
    "/empty.png": (200, {}, b""),
    "/text.mp4": (200, {}, b"#EXTM3U"),
}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers, body = ANSWERS.get(self.path.split("?")[0], (404, {}, b""))
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)


def images(address: str, **how: Any) -> list[SourceImage]:
    return list(WebFile(address).images(Reading(**how)))


def test_images_animations_and_redirections(host: str) -> None:
    for address in (f"{host}/a.png", f"{host}/moved.png", f"{host}/", f"{host}/a.png?size=2#x"):
        (image,) = images(address)
        assert image.name == address and image.read().shape == (6, 9, 3)
    assert [image.frame for image in images(f"{host}/b.gif")] == [0, 1]
    (first,) = images(f"{host}/b.gif", pages="first")
    assert first.frame is None and first.read()[0, 0, 0] == 10


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent.png", "the server says 404 Not Found"),
        ("page.png", "not an image but a web page"),
        ("local.png", "Redirection to url 'file:///etc/hostname' is not allowed"),
        ("ftp.png", "unknown url type: ftp"),
        ("round.png", "redirect"),
        ("short.png", "connection was lost"),
        ("empty.png", "empty file"),
        ("text.mp4", "not a readable video (a text file)"),
    ],
)
def test_what_cannot_be_read_is_one_line(host: str, path: str, reason: str) -> None:
    (image,) = images(f"{host}/{path}")
    with pytest.raises(DataError) as caught:
        image.read()
    line = str(caught.value)
    assert reason in line and host in line and "/tmp" not in line and "\n" not in line


def test_nobody_listens() -> None:
    (image,) = images("http://127.0.0.1:9/a.png")
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/a.png: cannot be reached \("):
        image.read()


def test_bounds_of_size_and_time(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 10)
    with pytest.raises(DataError, match="larger than"):
        images(f"{host}/a.png")[0].read()
    monkeypatch.setattr(download, "LARGEST", 10_000)
    monkeypatch.setattr(download, "LONGEST", -1.0)
    with pytest.raises(DataError, match="not there after"):
        images(f"{host}/a.png")[0].read()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://a.b/x/y.png?z=1", "y.png"),
        ("http://a.b/x/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "passwd"),
        ("http://a.b/..%5c..%5cx.png", "x.png"),
        ("http://a.b/%00%1b[2Jx.png", "_x00_x1b[2Jx.png"),
        ("http://a.b", "download"),
        ("http://a.b/..", "download"),
    ],
)
def test_names(address: str, name: str) -> None:
    assert WebFile(address).relative == Path(name)


def test_a_suffix_from_an_address_is_no_file_name(host: str) -> None:
    (image,) = images(f"{host}/?x/a.{'y' * 5000}")
    assert image.read().shape == (6, 9, 3)
    (image,) = images(f"{host}/a.{'y' * 500}")
    with pytest.raises(DataError, match="404"):
        image.read()


def test_nothing_is_left_behind(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images(f"{host}/a.png"), images(f"{host}/absent.png")
    assert list(tmp_path.iterdir()) == []
