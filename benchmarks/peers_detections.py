"""How `peers_*.py` write what a peer finds, with nothing but what any Python has."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_detections(path: Path, images: Iterable[str], predict: Callable[[str], Any]) -> None:
    """Write COCO entries with file names and class names.

    Args:
        path: The JSON file.
        images: Files of the test split.
        predict: Gives what is found in one: `boxes.xyxy`, `.conf` and `.cls` as tensors, `names`.
    """
    rows = []
    for image in images:
        found = predict(image)
        columns = (found.boxes.xyxy, found.boxes.conf, found.boxes.cls)
        for (x0, y0, x1, y1), score, label in zip(*(c.tolist() for c in columns), strict=True):
            # A head that has learned little gives boxes of negative sides: they find nothing either
            box = [x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0)]
            rows.append({"image_id": Path(image).name, "category_id": int(label), "score": score})
            rows[-1] |= {"category_name": found.names[int(label)], "bbox": box}
    path.write_text(json.dumps(rows))
