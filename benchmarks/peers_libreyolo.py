"""What `peers.py` runs under a Python that has LibreYOLO: train and detect by its interface.

    python peers_libreyolo.py '{"model": "yolo9_p2-t", "data": ..., "images": [...], ...}'

Writes `detections.json` beside the weights: COCO entries with file names and class names.
"""

import json
import sys
from pathlib import Path

import torch
from libreyolo import LibreYOLO9P2

KEPT = {"conf": 0.02, "iou": 0.5, "max_det": 1500}

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
images, size = given.pop("images"), given.pop("model").rpartition("-")[2]
model = LibreYOLO9P2(None, size=size, device=given["device"])
model.train(batch=4, workers=0, eval_interval=0, exist_ok=True, amp=False, **given)
run = Path(given["project"]) / given["name"]
trained = LibreYOLO9P2(str(run / "weights" / "last.pt"), size=size, device=given["device"])
rows = []
for image in images:
    found = trained.predict(image, imgsz=given["imgsz"], **KEPT)
    for (x0, y0, x1, y1), score, label in zip(
        found.boxes.xyxy.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True
    ):
        box = [x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0)]
        name = found.names[int(label)]
        rows.append({"image_id": Path(image).name, "category_id": int(label), "score": score})
        rows[-1] |= {"category_name": name, "bbox": box}
(run / "detections.json").write_text(json.dumps(rows))
