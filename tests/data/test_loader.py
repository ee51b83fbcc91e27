"""Samples and batches follow from (seed, epoch, row) at any number of workers and ranks."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from rfla.data import (
    Augmentation,
    Batch,
    DetectionDataset,
    EvalSampler,
    Loader,
    Sample,
    TrainSampler,
    build_loader,
    load_data_spec,
    load_index,
)
from rfla.data.cache import DiskCache, MemoryCache
from rfla.errors import DataError
from rfla.sizes import STRIDE


@pytest.fixture
def dataset(coco) -> DetectionDataset:
    boxes = [
        [(5 + n, 6, 8, 9, 3), (30, 20, 6, 6, 7), (40, 5, 9, 9, 7, {"ignore": 1})][: n % 4]
        for n in range(11)
    ]
    return DetectionDataset(
        load_index(load_data_spec(coco(boxes)), "train", for_training=True),
        96,
        Augmentation(),
        seed=3,
    )


def batches(
    dataset: DetectionDataset,
    workers: int,
    epoch: int = 1,
    rank: int = 0,
    world: int = 1,
    skip: int = 0,
) -> list[Batch]:
    sampler = TrainSampler(len(dataset), 4, seed=3, rank=rank, world=world)
    sampler.set_epoch(epoch, skip_batches=skip)
    return list(build_loader(dataset, sampler, workers))


def each_once(dataset: DetectionDataset, batch: int, workers: int = 0) -> Loader:
    return build_loader(dataset, EvalSampler(dataset.padded_sizes(), batch), workers)


def assert_same(first: Batch, second: Batch) -> None:
    assert torch.equal(first.images, second.images) and torch.equal(first.indices, second.indices)
    assert torch.equal(first.scales, second.scales) and first.image_sizes == second.image_sizes
    for one, two in zip(first.targets, second.targets, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in ("boxes", "labels", "ignore"))


def test_what_a_batch_holds(dataset: DetectionDataset):
    batch = batches(dataset, 0)[0]
    assert (
        batch.images.shape == (4, 3, *batch.images.shape[2:]) and batch.images.dtype == torch.uint8
    )
    assert all(side % 32 == 0 for side in batch.images.shape[2:])
    for image, (h, w), target in zip(batch.images, batch.image_sizes, batch.targets, strict=True):
        assert max(h, w) == 96 and not image[:, h:].any() and not image[:, :, w:].any()
        assert target["boxes"].dtype == torch.float32 and target["boxes"].shape == (
            len(target["labels"]),
            4,
        )
        assert target["labels"].dtype == torch.int64 and target["ignore"].shape[1:] == (4,)
    assert (
        batch.indices.shape == (4,) and batch.scales.shape == (4, 2) and len(batch.to("cpu")) == 4
    )


def test_the_same_batches_at_any_number_of_workers(dataset: DetectionDataset):
    reference = batches(dataset, 0)
    for workers in (1, 2):
        for one, two in zip(reference, batches(dataset, workers), strict=True):
            assert_same(one, two)


def test_a_cache_is_in_memory_or_on_disk(dataset: DetectionDataset):
    with pytest.raises(ValueError, match="cache=True: 'ram' or 'disk' expected"):
        DetectionDataset(dataset.index, 96, cache=True)


def test_an_epoch_without_mosaics_is_as_if_there_were_none(dataset: DetectionDataset):
    plain = DetectionDataset(dataset.index, 96, Augmentation(), seed=3)
    closing = Augmentation(mosaic=1.0, mosaic_epochs=2)
    mosaics = DetectionDataset(dataset.index, 96, closing, seed=3)
    last = mosaics[2, 0]
    assert np.array_equal(last.image, plain[2, 0].image)
    assert np.array_equal(last.boxes, plain[2, 0].boxes)
    assert not np.array_equal(mosaics[1, 0].image, plain[1, 0].image)


def test_mosaics_are_the_same_at_any_number_of_workers_and_survive_an_unreadable_image(
    dataset: DetectionDataset,
):
    Path(str(dataset.index.paths[6])).write_bytes(b"no image")
    mosaic = DetectionDataset(dataset.index, 96, Augmentation(mosaic=1.0), seed=3)
    reference = batches(mosaic, 0)
    for one, two in zip(reference, batches(mosaic, 2), strict=True):
        assert_same(one, two)
    samples = [mosaic[1, row] for row in range(11)]
    skipped = {row for sample in samples for row, _ in sample.skipped}
    assert skipped == {6} and sum(bool(sample.skipped) for sample in samples) > 1
    labels = mosaic.index.labels[~mosaic.index.ignore]
    for sample in samples:
        assert set(sample.labels.tolist()) <= set(labels.tolist()) and len(sample.boxes) == len(
            sample.labels
        )
    assert max(len(sample.labels) for sample in samples) > 2  # more than any one of the images has


def test_two_ranks_see_the_same_global_batches(dataset: DetectionDataset):
    whole = batches(dataset, 0)
    halves = [batches(dataset, 0, rank=rank, world=2) for rank in (0, 1)]
    for batch, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(batch.indices, torch.cat([left.indices, right.indices]))
        assert [t["boxes"].tolist() for t in batch.targets] == [
            t["boxes"].tolist() for t in left.targets + right.targets
        ]


def test_a_run_resumed_in_the_middle_of_an_epoch(dataset: DetectionDataset):
    for one, two in zip(batches(dataset, 0)[2:], batches(dataset, 0, skip=2), strict=True):
        assert_same(one, two)


def test_epochs_differ_and_every_image_comes_once(dataset: DetectionDataset):
    rows = [torch.cat([batch.indices for batch in batches(dataset, 0, epoch)]) for epoch in (0, 1)]
    assert len(rows[0]) == 12 and sorted(set(rows[0].tolist())) == list(range(11)) == sorted(
        set(rows[1].tolist())
    )
    assert rows[0].tolist() != rows[1].tolist()
    assert not torch.equal(batches(dataset, 0, 0)[0].images, batches(dataset, 0, 1)[0].images)


def test_no_image_of_an_evaluation_is_padded_for_a_neighbour(coco):
    """Every other picture is half as high: at 64 px of input 64 or 32 rows."""
    root = coco([[(1, 2, 3, 4, 3)]] * 6)
    index = load_index(load_data_spec(root), "train")
    for row, path in enumerate(index.paths):
        cv2.imwrite(str(path), np.zeros((64 >> row % 2, 64, 3), np.uint8))
    sizes = np.array([(64 >> row % 2, 64) for row in range(6)], np.int32)
    dataset = DetectionDataset(replace(index, image_hw=sizes), 64)
    assert dataset.padded_sizes().tolist() == sizes.tolist()
    for batch in each_once(dataset, 2):
        height, width = batch.images.shape[2:]
        assert batch.image_sizes == [(height, width)] * len(batch)


def test_evaluation_boxes_are_scaled_with_the_image(dataset: DetectionDataset):
    plain = DetectionDataset(dataset.index, 96)
    sample = plain[3]
    assert sample.image.shape == (64, 96, 3) and sample.scale == (1.6, 1.6)
    np.testing.assert_allclose(sample.boxes[0], np.array([8, 6, 16, 15]) * 1.6, rtol=1e-6)
    assert sample.labels.tolist() == [0, 1] and sample.ignore.shape == (1, 4)


def test_unreadable_images_are_skipped_and_named_once(
    dataset: DetectionDataset, caplog: pytest.LogCaptureFixture
):
    for row in (2, 5):
        Path(str(dataset.index.paths[row])).write_bytes(b"no image")
    with caplog.at_level(logging.WARNING, "rfla.data"):
        loader = build_loader(dataset, TrainSampler(11, 4, 3))
        rows = [row for _ in range(2) for batch in loader for row in batch.indices.tolist()]
    assert len(rows) == 24 and not {2, 5} & set(rows) and set(loader.skipped) == {2, 5}
    assert len(caplog.records) == 2 and "train_2.png: not an image" in caplog.text

    for number in (0, 1, 2, 3):
        Path(str(dataset.index.paths[number])).write_bytes(b"")
    loader = each_once(DetectionDataset(dataset.index, 96), 4)
    assert [batch.indices.tolist() for batch in loader] == [[4, 6, 7], [8, 9, 10]] and len(
        loader.skipped
    ) == 5


def test_a_set_without_any_readable_image_ends_with_one_line(coco):
    root = coco([[(1, 2, 3, 4, 3)]] * 2)
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    dataset = DetectionDataset(load_index(load_data_spec(root), "train"), 64, Augmentation())
    with pytest.raises(DataError, match=r"could not be read; the first: .*empty file"):
        dataset[0, 0]
    with pytest.raises(DataError) as caught:  # the same from a worker, without its traceback
        list(build_loader(dataset, TrainSampler(2, 2), 1))
    assert "\n" not in str(caught.value) and "could not be read; the first" in str(caught.value)


def test_annotations_of_another_size_than_the_image(coco):
    root = coco([[(10, 10, 20, 10, 3)]])
    PillowImage.new("RGB", (120, 80)).save(root / "images/train_0.png")  # stated: 60 x 40
    index = load_index(load_data_spec(root), "train")
    dataset = DetectionDataset(index, 60)
    image, boxes = dataset.read(0)
    assert image.shape == (80, 120, 3) and boxes.tolist() == [[20, 20, 60, 40]]
    sample = dataset[0]  # 60 px wide, as the annotations have it: nothing to scale back
    assert (
        sample.image.shape == (40, 60, 3)
        and sample.scale == (1, 1)
        and sample.boxes.tolist() == [[10, 10, 30, 20]]
    )
    assert index.picture(0).shape == (40, 60, 3)
    PillowImage.new("RGB", (70, 50)).save(root / "images/train_0.png")
    with pytest.raises(
        DataError, match=r"train_0\.png: 70 x 50 px, but its annotations state 60 x 40"
    ):
        dataset.read(0)


def test_boxes_drawn_before_the_exif_orientation(coco):
    root = coco([[(10, 10, 20, 10, 3)]])
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.new("RGB", (60, 40)).save(root / "images/train_0.jpg", exif=exif)
    path = root / "annotations/train.json"
    content = json.loads(path.read_text().replace("train_0.png", "train_0.jpg"))
    path.write_text(json.dumps(content))
    index = load_index(load_data_spec(root), "train")
    assert DetectionDataset(index, 60).read(0)[0].shape == (
        40,
        60,
        3,
    )  # as stated: the pixels as stored
    content["images"][0].update(width=40, height=60)
    path.write_text(json.dumps(content))
    assert DetectionDataset(load_index(load_data_spec(root), "train"), 60).read(0)[0].shape == (
        60,
        40,
        3,
    )


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_gives_the_same_batches(
    dataset: DetectionDataset, kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = DetectionDataset(dataset.index, 96, Augmentation(), seed=3, cache=kind)
    first = batches(cached, 2)
    for path in map(str, dataset.index.paths):
        Path(path).unlink()  # from now on everything comes from the cache that the workers filled
    for one, two in zip(first, batches(cached, 0), strict=True):
        assert_same(one, two)


def test_a_disk_cache_is_removed_at_the_end_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    killed = tmp_path / "rfla/decoded/999999999-left"
    killed.mkdir(parents=True)
    cache = DiskCache(np.full((1, 2), 8, np.int32))
    assert cache.folder.is_dir() and not killed.exists()
    folder = cache.folder
    del cache
    assert not folder.exists()


def test_a_cache_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    huge = np.full((1000, 2), 2_000_000, np.int32)
    for kind in (MemoryCache, DiskCache):
        with pytest.raises(DataError, match=r"GB are free; use cache="):
            kind(huge)


def test_caches_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images of 192 bytes, 576 in all; of 1,000 free bytes 800 may be taken."""
    monkeypatch.setattr("rfla.data.cache._free_memory", lambda: 1000)
    sizes = np.full((3, 2), 8, np.int32)
    train = MemoryCache(sizes)
    assert train.unfilled == 576
    with pytest.raises(DataError, match="cache: the decoded images need"):
        MemoryCache(sizes)  # 424 are left
    train.put(0, np.zeros((8, 8, 3), np.uint8))
    assert train.unfilled == 384
    MemoryCache(sizes[:2])  # what is filled the system counts itself: 1000 - 384
    del train
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DataError):
        MemoryCache(sizes)  # 500 bytes for each of two processes


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_official_dataset_trains_on(parity, parity_dir: Path, tmp_path: Path, number: int):
    """Records of AITODDataset: what its parse keeps (it does not clip, and drops empty images)."""
    import gzip

    manifest, _ = parity("dataset")
    case = manifest["cases"][number]
    content = json.loads(gzip.decompress((parity_dir / case["gt_file"]).read_bytes()))
    first, category = content["images"][0]["id"], content["categories"][0]["id"]
    for entry in case["appended_annotations"]:
        x, y, w, h = entry["bbox"]
        area = w * h if entry["area"] is None else entry["area"]
        extra = {
            "id": 10**6 + len(content["annotations"]),
            "image_id": first,
            "category_id": category,
            "iscrowd": 0,
        }
        content["annotations"].append(extra | {"bbox": [x, y, w, h], "area": area})
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    for entry in content["images"]:
        (tmp_path / "images" / entry["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / entry["file_name"]).touch()
    (tmp_path / "annotations/train.json").write_text(json.dumps(content))
    names = [
        next(c["name"] for c in content["categories"] if c["id"] == i)
        for i in case["cat_ids_in_label_order"]
    ]
    (tmp_path / "data.yaml").write_text(
        json.dumps({"train": "annotations/train.json", "images": "images", "names": names})
    )
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    row_of = {int(identity): row for row, identity in enumerate(index.image_ids)}
    for record in case["per_image"]:
        rows = index.rows_of(row_of[record["img_id"]])
        apart = index.ignore[rows] | index.crowd[rows]
        assert int((~apart).sum()) == record["n"] and int(apart.sum()) == record["n_ignore"]
        if (
            record["img_id"] != first
        ):  # boxes were appended there, and ours clips those over the border
            assert int(index.labels[rows][~apart].sum()) == record["label_sum"]
            assert float(index.boxes[rows][~apart].sum()) == pytest.approx(
                record["box_sum"], rel=1e-5
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_remark_on_files_is_logged_once(coco, caplog: pytest.LogCaptureFixture, workers: int):
    root = coco([[(5, 5, 10, 10, 3)]] * 4)
    for path in sorted((root / "images").glob("*.png"))[1:]:
        PillowImage.fromarray(np.full((40, 60), 3000, np.uint16)).save(path)
    index = load_index(load_data_spec(root), "train")
    loader = each_once(DetectionDataset(index, 60), 2, workers)
    for _ in range(2):
        list(loader)
    loader.close()
    first = f"(first: {root / 'images' / 'train_1.png'})"
    lines = [line for line in caplog.messages if "read as 12-bit" in line]
    assert len(lines) == 1 and lines[0].endswith(first)
    ranged = DetectionDataset(replace(index, value_range=(0, 6000)), 60)
    images = [ranged[row].image for row in (1, 2)]
    assert all((image == 128).all() for image in images)


class SlowSamples:
    """Samples of one px; making any but the first batch's takes a minute."""

    def __init__(self) -> None:
        self.index = type("Index", (), {"paths": np.array(["a"] * 64)})()

    def __len__(self) -> int:
        return 64

    def padded_sizes(self) -> np.ndarray:
        return np.full((64, 2), STRIDE)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        if key[1] >= 4:
            time.sleep(60)
        none = np.zeros((0, 4), np.float32)
        pixel = np.zeros((1, 1, 3), np.uint8)
        return Sample(pixel, none, np.zeros(0, np.int64), none, key[1], (1.0, 1.0))


def busy_loader(timeout: float = 0) -> tuple[Loader, list[int]]:
    """A loader whose two processes are in the middle of a batch, and their ids."""
    samples = SlowSamples()
    loader = build_loader(samples, EvalSampler(samples.padded_sizes(), 2), timeout=timeout)
    batches = iter(loader)
    next(batches), next(batches)
    return loader, [process.pid for process in loader.loader._iterator._workers]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it may go between looking and reading
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_workers_end_at_once_when_their_loader_is_closed_or_goes():
    for end in (lambda loader: loader.close(), lambda loader: loader._workers_ended()):
        loader, pids = busy_loader()
        start = time.monotonic()
        end(loader)
        assert time.monotonic() - start < 3 and not any(map(is_running, pids))


def test_a_stopped_worker_ends_too():
    loader, pids = busy_loader()
    os.kill(pids[0], signal.SIGSTOP)
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 4 and not any(map(is_running, pids))


def test_a_closed_loader_starts_other_processes(dataset: DetectionDataset):
    loader = each_once(dataset, 4, 2)
    first = list(loader)
    loader.close()
    for one, two in zip(first, loader, strict=True):
        assert_same(one, two)
    loader.close()


def test_signals_of_the_group_are_left_to_the_main_process():
    """SIGTERM of `timeout`, SIGHUP of a closed terminal, ...: the workers go on."""
    loader, pids = busy_loader()
    for name in ("TERM", "TERM", "HUP", "INT", "USR1", "XCPU"):
        for pid in pids:
            subprocess.run(["kill", f"-{name}", str(pid)], check=True)
    time.sleep(0.3)
    assert all(map(is_running, pids))
    loader.close()


def test_a_stopped_worker_is_noticed():
    loader, _ = busy_loader(timeout=1)
    with pytest.raises(
        DataError, match=r"no batch for 1 s: a process that loads images is stopped"
    ):
        list(loader)
    loader.close()


FAILS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_loader
loader, pids = test_loader.busy_loader()
print(*pids, time.time(), flush=True)
if sys.argv[2] == "raise":
    raise ValueError("in mid-run")
if sys.argv[2] == "killed":
    import os
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["raise", "return", "killed"])
def test_a_process_with_busy_workers_ends_however_it_ends(how: str):
    command = [sys.executable, "-c", FAILS, str(Path(__file__).parent), how]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    *pids, begin = done.stdout.split()
    # The end of an interpreter that holds torch takes seconds on a busy machine, the workers one.
    assert time.time() - float(begin) < 20
    for pid in map(int, pids):
        deadline = time.monotonic() + 5
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(pid)
