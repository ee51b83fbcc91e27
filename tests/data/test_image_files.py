"""Images below a directory: links, runs, and what is no image."""

import time
from pathlib import Path

from rfla.data.image_files import in_run, is_image, walk_images


def test_hidden_files_are_no_images():
    assert (
        is_image(Path("a/b.PNG"))
        and not is_image(Path("a/._b.png"))
        and not is_image(Path("a/b.txt"))
    )


def test_linked_directories_are_entered_once_and_never_in_a_circle(tmp_path: Path):
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for path in (
        root / "b" / "1.png",
        root / "b" / "._2.png",
        elsewhere / "3.jpg",
        root / "notes.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "a").symlink_to(root / "b")  # a second name of what is here anyway
    (root / "c").symlink_to(elsewhere)
    (root / "up").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "gone")
    assert walk_images(root) == [root / "b" / "1.png", root / "c" / "3.jpg"]
    assert walk_images(tmp_path / "gone") == []


def test_what_a_run_wrote_is_none_of_the_images_around_it(tmp_path: Path) -> None:
    for name in ("a.png", "runs/train/labels.png", "runs/train/args.yaml", "runs/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert walk_images(tmp_path) == [tmp_path / "a.png", tmp_path / "runs" / "b.png"]
    run = tmp_path / "runs" / "train"
    assert walk_images(run) == [run / "labels.png"]  # asked for
    assert [in_run(run, place) for place in (tmp_path, run)] == [True, False]


def test_directories_of_the_kernel_are_never_searched(tmp_path: Path) -> None:
    """/proc/PID/cwd and its like lead everywhere, and the search would not end."""
    (tmp_path / "a.png").touch()
    (tmp_path / "proc").symlink_to("/proc")
    (tmp_path / "root").symlink_to("/proc/self/root")
    began = time.monotonic()
    assert walk_images(tmp_path / "proc") == walk_images(Path("/proc/self")) == []
    (tmp_path / "root").unlink()
    assert walk_images(tmp_path) == [tmp_path / "a.png"]
    assert time.monotonic() - began < 20
