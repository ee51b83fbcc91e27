"""`results.json`: every figure of a validation, for programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfla.files import write_atomically
from rfla.metrics.analysis import Study
from rfla.version import __version__


def write_results(
    directory: str | Path, study: Study, speed: Mapping[str, float] | None = None
) -> None:
    """Write `results.json` into a directory that is there."""
    text = json.dumps(results(study, speed), indent=1, allow_nan=False)
    write_atomically(Path(directory) / "results.json", text)


def results(study: Study, speed: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return what `results.json` holds: every figure, each class, and the whole analysis."""
    return {
        "version": __version__,
        "images": len(study.gt.image_ids),
        "boxes": len(study.gt.labels),
        "detections": len(study.detections),
        "metrics": study.metrics.as_dict(),
        "analysis": study.analysis.as_dict(),
        "speed_ms": dict(speed or {}),
    }
