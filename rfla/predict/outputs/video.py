"""Videos with boxes, through OpenCV: of the size and speed of what was read."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from rfla.cfg import Config
from rfla.files import for_opencv
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.predict.outputs.pictures import write_annotated
from rfla.results import Results

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # in the order in which they are tried
LINE = 2  # px: codecs keep the colour of 2 x 2 px, and lines of one lose theirs


class Videos(Output):
    """`town/flight.mp4`: the frames of a video or animation with their boxes.

    Its frames per second are those of the source, divided by `vid_stride`. Where OpenCV can encode
    no video, each frame becomes a picture.
    """

    key = "save_video"

    def __init__(self, run_dir: Path, cfg: Config):
        super().__init__(run_dir, cfg)
        self._open: _Writer | None = None
        self._first: tuple[Name, Results] | None = None

    def add(self, name: Name, results: Results) -> None:
        """Write one frame. The first waits for the second, which tells the time between them."""
        if name.frame_of is None:
            return
        if self._source() != name.frame_of:
            self.close()
            self._first = name, results
        elif self._first is not None:
            passed = (results.time or 0.0) - (self._first[1].time or 0.0)
            self._begin(1 / passed if passed > 0 else 1.0)
            self._write(name, results)
        else:
            self._write(name, results)

    def close(self) -> None:
        """Complete the video."""
        if self._first is not None:
            self._begin(1.0)
        # A video that cannot be completed is not tried again: `close` is called once more then.
        unfinished, self._open = self._open, None
        if unfinished is not None:
            unfinished.close()

    def _source(self) -> Path | None:
        """Return what the frames belong to that are being written."""
        if self._first is not None:
            return self._first[0].frame_of
        return self._open.source if self._open is not None else None

    def _begin(self, fps: float) -> None:
        assert self._first is not None
        (name, results), self._first = self._first, None
        assert name.frame_of is not None
        path = self.path_of(name._replace(stem=name.frame_of), "")
        height, width = results.orig_shape
        self._open = _Writer.begin(name.frame_of, path, round(fps, 3), (width, height))
        self._write(name, results)

    def _write(self, name: Name, results: Results) -> None:
        assert self._open is not None
        if self._open.encoder is None:
            write_annotated(self.path_of(name, ".png"), results, self.cfg)
            return
        width = self.cfg.line_width or LINE
        self._open.write(results.plot(width, self.cfg.show_labels, legend=False, scale=1))


@dataclass
class _Writer:
    """A video that is being written beside its place.

    Attributes:
        source: The stem of its source.
        path: What it becomes.
        beside: What is written.
        size: Width and height, px.
        encoder: OpenCV's writer; None where it has none.
        frames: Written so far.
    """

    source: Path
    path: Path
    beside: Path
    size: tuple[int, int]
    encoder: cv2.VideoWriter | None = field(default=None)
    frames: int = 0

    @classmethod
    def begin(cls, source: Path, path: Path, fps: float, size: tuple[int, int]) -> "_Writer":
        """Open a video by the first codec that this OpenCV has."""
        for suffix, codec in CODECS.items():
            target = path.with_name(f"{path.name}{suffix}")
            beside = path.with_name(f".{path.name}{suffix}")
            code = cv2.VideoWriter.fourcc(*codec)
            encoder = cv2.VideoWriter(for_opencv(beside), cv2.CAP_FFMPEG, code, fps, size)
            if encoder.isOpened():
                return cls(source, target, beside, size, encoder)
            beside.unlink(missing_ok=True)
        return cls(source, path, path, size)

    def write(self, picture: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB."""
        assert self.encoder is not None
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if (bgr.shape[1], bgr.shape[0]) != self.size:  # a camera may change it on the way
            bgr = cv2.resize(bgr, self.size)
        self.encoder.write(bgr)
        self.frames += 1

    def close(self) -> None:
        """Complete the video, and put it in its place.

        Raises:
            OSError: It does not hold what was written: the disk is full.
        """
        if self.encoder is None:
            return
        self.encoder.release()
        written = cv2.VideoCapture(for_opencv(self.beside), cv2.CAP_FFMPEG)
        held = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if held < self.frames:
            self.beside.unlink(missing_ok=True)
            raise OSError(f"{self.path}: only {max(held, 0)} of {self.frames} frames were written")
        self.beside.replace(self.path)
