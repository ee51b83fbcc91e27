"""The files of a prediction. Each kind is a class in a file of this package and a row below."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rfla.cfg import Config
from rfla.predict.names import OutputNames
from rfla.predict.outputs.density import Density
from rfla.predict.outputs.geojson import GeoJson
from rfla.predict.outputs.geopackage import GeoPackage
from rfla.predict.outputs.output import Output, Row
from rfla.predict.outputs.pictures import Crops, Pictures
from rfla.predict.outputs.tables import Predictions, Table, Text
from rfla.predict.outputs.video import Videos
from rfla.predict.source_image import Source
from rfla.results import Results

OUTPUTS: tuple[type[Output], ...] = (
    *(Pictures, Videos, Text, Crops, Density),
    *(Predictions, Table, GeoJson, GeoPackage),
)


class Outputs:
    """Writes the results of images as they come, into a run directory.

    Args:
        run_dir: Exists, and is ours.
        sources: All sources of the run, in order.
        cfg: What is written, and how.
    """

    def __init__(self, run_dir: Path, sources: Sequence[Source], cfg: Config):
        self.run_dir = run_dir
        self.rows: list[Row] = []
        self._names = OutputNames(sources)
        self._outputs = [kind(run_dir, cfg) for kind in OUTPUTS if kind.wanted(cfg)]

    def write(self, results: Results) -> None:
        """Write one image's files, as the settings ask."""
        name = self._names.of(results)
        for output in self._outputs:
            output.add(name, results)
        self.keep(replace(results, orig_img=np.zeros((0, 0, 3), np.uint8)))

    def keep(self, results: Results) -> None:
        """Take one image, without pixels, whose own files are written, for those of the run."""
        self.rows.append(Row(self._names.of(results), results))

    @property
    def left_out(self) -> list[str]:
        """One line for each file of an image that could not be written."""
        return [line for output in self._outputs for line in output.left_out]

    def close(self) -> None:
        """Complete the files of this process; those of the run are still to be written."""
        for output in self._outputs:
            output.close()

    def rescue(self) -> None:
        """Complete all files with what was found so far, before Ctrl-C or a full disk."""
        try:
            self.close()
        finally:
            self.finish([self.rows])

    def finish(self, shards: Iterable[Sequence[Row]]) -> Counter[str]:
        """Write the files of the run from the rows of all processes; count boxes by class."""
        rows = {row.name.order: row for shard in shards for row in shard}
        ordered = [rows[order] for order in sorted(rows)]
        for output in self._outputs:
            output.finish(ordered)
        found: Counter[str] = Counter()
        for row in ordered:
            found.update(row.results.names[label] for label in row.results.boxes.cls.tolist())
        return found
