"""What `peers.py` runs under a Python that has Ultralytics: train and detect by its interface.

    python peers_ultralytics.py '{"model": ..., "data": ..., "epochs": ..., "images": [...], ...}'

Writes `detections.json` beside the weights: COCO entries with file names and class names.
"""

import json
import sys
from pathlib import Path

import torch
from ultralytics import YOLO

KEPT = {"conf": 0.02, "iou": 0.5, "max_det": 1500, "verbose": False}

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
images, model = given.pop("images"), YOLO(given.pop("model"))
quiet = {"workers": 0, "plots": False, "val": False, "exist_ok": True, "pretrained": False}
model.train(batch=4, **quiet, **given)
run = Path(given["project"]) / given["name"]
trained = YOLO(run / "weights" / "last.pt")
rows = []
for image in images:
    (found,) = trained.predict(image, imgsz=given["imgsz"], device=given["device"], **KEPT)
    for (x0, y0, x1, y1), score, label in zip(
        found.boxes.xyxy.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True
    ):
        # A head that has learned little gives boxes of negative sides: they find nothing either.
        box = [x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0)]
        name = found.names[int(label)]
        rows.append({"image_id": Path(image).name, "category_id": int(label), "score": score})
        rows[-1] |= {"category_name": name, "bbox": box}
(run / "detections.json").write_text(json.dumps(rows))
