"""Cut the essentials out of the records of whole models: `python make_models.py RECORDS`.

The weights follow from the key names by a formula (`tests/models/recipe.py`), so that keys,
detections and losses are enough to prove a detector number for number. The records were made with
the authors' code; see docs/models.md.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

MODELS = (
    "fcos_p2_rfla",
    "autoassign_base",
    "retinanet_rfla",
    "faster_rfla",
    "cascade_rfla",
    "detectors_rfla",
)


def essentials(folder: Path) -> dict:
    """Keys with shapes, the detections, and the training case of one image."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = json.loads((folder / "state_dict.json").read_text())["entries"]
    tensors = load_file(folder / "data.safetensors")
    cases = {case["id"]: case for case in manifest["cases"]}
    train = cases["train_b1"]
    return {
        "config": manifest["config"],
        "entries": [entry[:2] for entry in entries],
        "score_thr": cases["eval"]["score_thr_used"],
        "boxes_scores": [
            [round(value, 5) for value in row] for row in tensors["det_boxes_scores"].tolist()
        ],
        "labels": tensors["det_labels"].tolist(),
        "train": {key: train[key] for key in ("gts", "labels", "losses", "total_grad_l2")},
    }


if __name__ == "__main__":
    for name in MODELS:
        text = json.dumps(essentials(Path(sys.argv[1]) / "models" / name), separators=(",", ":"))
        Path(__file__).with_name(f"{name}.json").write_text(text + "\n")
