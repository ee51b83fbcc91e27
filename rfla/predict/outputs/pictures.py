"""Annotated pictures, and the pixels of each box."""

from pathlib import Path

from rfla.cfg import Config
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.results import Results


def write_annotated(path: Path, results: Results, cfg: Config) -> None:
    """Write the picture of an image with its boxes, as the settings draw it."""
    results.save(path, cfg.line_width, cfg.show_labels, legend=cfg.legend, scale=cfg.scale)


class Pictures(Output):
    """`town/a.png`: the image with its boxes; not of frames that go into a video."""

    key = "save"

    def add(self, name: Name, results: Results) -> None:
        """Write one picture."""
        if name.frame_of is None or not self.cfg.save_video:
            write_annotated(self.path_of(name, ".png"), results, self.cfg)


class Crops(Output):
    """`crops/CLASS/town/a_1.png`: the pixels of each box."""

    key = "save_crop"

    def add(self, name: Name, results: Results) -> None:
        """Write the boxes of one image."""
        results.save_crop(self.run_dir / "crops", str(name.stem))
