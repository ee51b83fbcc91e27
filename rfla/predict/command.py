"""`rfla predict`: a source in, a run directory of pictures and files out."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from rfla.cfg import Config, model_part
from rfla.data.image_header import set_max_pixels
from rfla.engine.console import Progress, make_console
from rfla.engine.device import select_device
from rfla.engine.distributed import World, agreed, gather, join_world, lost_peers_named
from rfla.engine.processes import refuse_several
from rfla.engine.run_dir import claim_run_dir
from rfla.errors import ConfigError, DataError, counted
from rfla.predict.background_work import BackgroundWork
from rfla.predict.image_jobs import share_of
from rfla.predict.model import load_model
from rfla.predict.notes import Notes, joined
from rfla.predict.options import PredictOptions
from rfla.predict.outputs import Outputs
from rfla.predict.predictor import Predictor
from rfla.predict.prefetch import images_of
from rfla.predict.progress_file import ProgressFile, forget, restore
from rfla.predict.shared_scene import shared_sources, stream_together
from rfla.predict.source_image import Source
from rfla.predict.sources import are_live, find_sources
from rfla.results import Results

WAITING = 2  # images whose files are not yet written, while the network goes on


class Prediction(NamedTuple):
    """What a prediction left behind.

    Attributes:
        run_dir: Its files.
        skipped: One line for each image that could not be read, and for each file of an image that
            could not be written.
    """

    run_dir: Path
    skipped: list[str]


def predict(cfg: Config) -> Prediction:
    """Predict as `rfla predict` does: pictures, `predictions.json`, and text where asked for.

    Args:
        cfg: Settings; `model` and `source` are needed.

    Raises:
        RflaError: Any error that the user can fix, in one line.
    """
    if cfg.model is None or cfg.source is None:
        raise ConfigError(
            "predict needs model= (a .safetensors or .onnx file) and source= (an image or video, "
            "a directory, a pattern, a list, ...)"
        )
    refuse_several(cfg.device, "predict")
    set_max_pixels(cfg.max_pixels)
    device = select_device(cfg.device)
    return _predict(cfg, join_world(device, cfg.timeout), device)


def _predict(cfg: Config, world: World, device: torch.device) -> Prediction:
    console = make_console(quiet=not world.is_main)
    with agreed(world):
        # An image that is listed twice is predicted once: outputs are named after it.
        found = find_sources(str(cfg.source), recursive=cfg.recursive)
        sources = list({source.name: source for source in found}.values())
        model = load_model(str(cfg.model), model_part(cfg), device)
        options = PredictOptions.from_config(cfg, model, device=device, live=are_live(sources))
        predictor = Predictor(model, device, cfg.amp)
    notes = Notes()
    names = (source.name for source in sources)
    with claim_run_dir(cfg, world, "predict", names) as run_dir:
        outputs = Outputs(run_dir, sources, cfg)
        remaining = _take_up(cfg, world, outputs, sources, model.names, notes)
        alone, scenes = shared_sources(remaining, len(sources), options, world)
        share = share_of(alone, options.batch, world)
        every = chain(
            predictor.stream(images_of(share, options.reading), options, notes),
            stream_together(predictor, images_of(scenes, options.reading), options, notes, world),
        )
        expected = sum(source.expected(options.reading) for source in [*share, *scenes])
        with _rescued(outputs, world, console), lost_peers_named(world):
            stages = _write_all(every, expected, outputs, cfg, world, console)
            notes.left_out += outputs.left_out
            shards = gather(world, (outputs.rows, notes))
            notes = joined([part for _, part in shards])
            counts: Counter[str] = Counter()
            if world.is_main and notes.images:
                counts = outputs.finish([rows for rows, _ in shards])
        if world.is_main:
            forget(run_dir)
    _say_notes(cfg, console, notes, options, len(sources))
    # Images of a run that was taken up took no time of this one.
    run_now = notes.images - (len(sources) - len(remaining))
    each = {stage: value * world.size / run_now for stage, value in stages.items()}
    _say_totals(cfg, console, notes.images, counts, each)
    console.print(f"results in {run_dir}")
    return Prediction(run_dir, [*notes.skipped, *notes.left_out])


def _write_all(
    every: Iterable[Results],
    expected: int,
    outputs: Outputs,
    cfg: Config,
    world: World,
    console: Console,
) -> Counter[str]:
    """Write results while the network runs on; return the ms of each stage over all images."""
    stages: Counter[str] = Counter()
    done = ProgressFile(outputs.run_dir, world.rank)

    def write(results: Results) -> None:
        outputs.write(results)
        done.add(results)

    with (
        closing(done),
        Progress(console).over(expected, "predict") as bar,
        BackgroundWork(write, WAITING) as writer,
    ):
        for results in every:
            writer.add(results)
            stages.update(results.speed)
            bar.step()
            if cfg.verbose:
                console.print(f"{results.label}: {results.verbose()}")
    outputs.close()
    return stages


@contextmanager
def _rescued(outputs: Outputs, world: World, console: Console) -> Iterator[None]:
    """Complete the files with what was found if the block does not end, and say how to go on."""
    try:
        yield
    except BaseException:
        try:
            if world.is_main:
                outputs.rescue()
            else:  # the files of the run are the main process's
                outputs.close()
        finally:
            console.print(f"go on: rfla predict resume={shlex.quote(str(outputs.run_dir))}")
        raise


def _take_up(
    cfg: Config,
    world: World,
    outputs: Outputs,
    sources: Sequence[Source],
    names: tuple[str, ...],
    notes: Notes,
) -> list[Source]:
    """Return the sources that are still to be run; the others were, in a run that was stopped."""
    if not cfg.resume:
        return list(sources)
    with agreed(world):
        earlier = {results.path: results for results in restore(outputs.run_dir, names)}
    remaining = [source for source in sources if source.name not in earlier]
    if world.is_main:
        for source in sources:
            if source.name in earlier:
                outputs.keep(earlier[source.name])
                notes.images += 1
    return remaining


def _say_totals(
    cfg: Config, console: Console, images: int, counts: Counter[str], stages: dict[str, float]
) -> None:
    """Say what was found, by class, and how many ms of each stage an image took."""
    speed = ", ".join(f"{stage} {_shown_time(value)}" for stage, value in stages.items())
    console.print(
        f"{counted(images, 'image')}, {counted(counts.total(), 'detection')} with a score of "
        f"at least {cfg.conf:g}{f'; {speed} an image' if speed else ''}"
    )
    if counts:
        classes = (f"{count:,} {name}" for name, count in counts.most_common())
        console.print(f"found {', '.join(classes)}")


def _shown_time(milliseconds: float) -> str:
    shown = f"{milliseconds:.1f} ms"
    return shown if milliseconds < 999.95 else f"{milliseconds / 1000:.1f} s"


def _say_notes(
    cfg: Config, console: Console, notes: Notes, options: PredictOptions, sources: int
) -> None:
    """Say what was skipped and what a user should know.

    Raises:
        DataError: No image could be read.
    """
    if not notes.images and len(notes.skipped) == 1:
        raise DataError(notes.skipped[0])
    for reason in notes.skipped:
        console.print(f"skipped: {reason}", style="yellow")
    if not notes.images:
        raise DataError(f"source={cfg.source}: not one image of {sources:,} could be read")
    for reason in notes.left_out:
        console.print(f"left out: {reason}", style="yellow")
    for line in notes.lines(options.imgsz, options.limits.max_det, options.slices is not None):
        console.print(f"note: {line}", style="yellow")
