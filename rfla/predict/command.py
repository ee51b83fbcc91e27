"""`rfla predict`: a source in, a run directory of pictures and files out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from rfla.cfg import Config, model_part
from rfla.data.image_header import set_max_pixels
from rfla.engine.console import Progress, make_console
from rfla.engine.device import select_device
from rfla.engine.distributed import World, agreed, gather, join_world
from rfla.engine.model_source import load_trained
from rfla.engine.processes import refuse_several
from rfla.engine.run_dir import claim_run_dir
from rfla.errors import ConfigError, DataError
from rfla.predict.jobs import share_of
from rfla.predict.notes import Notes, joined
from rfla.predict.options import PredictOptions
from rfla.predict.outputs import Outputs, write_predictions
from rfla.predict.predictor import Predictor
from rfla.predict.sources import SourceImage, find_images
from rfla.results import Results

# Settings that change files alone.
OF_OUTPUTS = frozenset(
    {"save_conf", "name", "project", "exist_ok", "line_width", "show_labels"}
) | {
    *("legend", "scale"),
}


class Prediction(NamedTuple):
    """What a prediction left behind.

    Attributes:
        run_dir: Its files.
        skipped: One line for each image that could not be read.
    """

    run_dir: Path
    skipped: list[str]


def predict(cfg: Config) -> Prediction:
    """Predict as `rfla predict` does: pictures, `predictions.json`, and text where asked for.

    Args:
        cfg: Settings; `model` and `source` are needed.

    Raises:
        RflaError: Anything that the person can mend, in one line.
    """
    if cfg.model is None or cfg.source is None:
        raise ConfigError(
            "predict needs model= (a .safetensors file) and source= (an image, a directory, "
            "a pattern, a list)"
        )
    refuse_several(cfg.device, "predict")
    set_max_pixels(cfg.max_pixels)
    device = select_device(cfg.device)
    return _predict(cfg, join_world(device, cfg.timeout), device)


def _predict(cfg: Config, world: World, device: torch.device) -> Prediction:
    console = make_console(quiet=not world.is_main)
    with agreed(world):
        # An image that is listed twice is predicted once: outputs are named after it.
        images = list({image.name: image for image in find_images(str(cfg.source))}.values())
        model = load_trained(str(cfg.model), model_part(cfg))
        options = PredictOptions.from_config(cfg, model)
        predictor = Predictor(model, device, cfg.amp)
    share = share_of(images, options.batch, world)
    notes = Notes()
    stages: Counter[str] = Counter()
    with (
        claim_run_dir(cfg, world, "predict") as run_dir,
        Progress(console).over(len(share), "predict") as bar,
    ):
        outputs = Outputs(run_dir, images, cfg)
        try:
            for results in predictor.stream(share, options, notes):
                outputs.write(results)
                stages.update(results.speed)
                bar.step()
                if cfg.verbose:
                    console.print(f"{results.path}: {results.verbose()}")
        except BaseException:  # what was found before Ctrl-C or a full disk is kept
            write_predictions(run_dir, [outputs.rows])
            raise
        shards = gather(world, (outputs.rows, notes))
        notes = joined([part for _, part in shards])
        count = 0
        if world.is_main:
            count = write_predictions(run_dir, [rows for rows, _ in shards])
    for reason in notes.skipped:
        console.print(f"skipped: {reason}", style="yellow")
    if not notes.images:
        raise DataError(f"source={cfg.source}: none of {len(images)} images could be read")
    for line in notes.lines(options.imgsz, options.max_det, options.slices is not None):
        console.print(f"note: {line}", style="yellow")
    speed = ", ".join(
        f"{stage} {value * world.size / notes.images:.1f} ms" for stage, value in stages.items()
    )
    console.print(
        f"{notes.images} images, {count} detections with a score of at least {cfg.conf:g}; "
        f"{speed} an image"
    )
    console.print(f"results in {run_dir}")
    return Prediction(run_dir, notes.skipped)


def written(
    results: Iterable[Results], images: Sequence[SourceImage], cfg: Config
) -> Iterator[Results]:
    """Pass results on, and write them into a run directory as the command does."""
    with claim_run_dir(cfg, World(), "predict") as run_dir:
        outputs = Outputs(run_dir, images, cfg)
        try:
            for result in results:
                outputs.write(result)
                yield result
        finally:
            write_predictions(run_dir, [outputs.rows])


def with_given_outputs(cfg: Config) -> Config:
    """Return settings with the outputs that were named, and no others: Python writes on request.

    Raises:
        ConfigError: A setting of outputs without one.
    """
    cfg = cfg if "save" in cfg.given else cfg.model_copy(update={"save": False})
    useless = sorted(OF_OUTPUTS & cfg.given)
    if useless and not writes(cfg):
        raise ConfigError(
            f"{', '.join(useless)}: nothing is written without save=True, save_txt=True or "
            "save_crop=True"
        )
    return cfg


def writes(cfg: Config) -> bool:
    """Whether any file of results is asked for."""
    return cfg.save or cfg.save_txt or cfg.save_crop
