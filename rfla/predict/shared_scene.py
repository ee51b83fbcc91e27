"""One scene by several processes: each takes a part of its slices, the main one merges them all.

The parts are runs of the slices in their order, so that joined by rank they are what one process
would have found.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from rfla.engine.distributed import World, gather
from rfla.predict.image_jobs import Collected, Job
from rfla.predict.notes import Notes, joined
from rfla.predict.options import Part, PredictOptions
from rfla.predict.predictor import Predictor
from rfla.predict.source_image import Source, SourceImage
from rfla.results import Results


class Shard(NamedTuple):
    """What one process found in its part of a scene.

    Attributes:
        entries: Boxes, scores and labels of each slice.
        full: Whether a slice reached the limit of boxes.
        notes: What a user should know.
        milliseconds: Time of each stage.
    """

    entries: list[tuple[Any, Any, Any]] | None
    full: bool
    notes: Notes
    milliseconds: dict[str, float]


def shared_sources(
    sources: Iterable[Source], count: int, options: PredictOptions, world: World
) -> tuple[list[Source], list[SourceImage]]:
    """Divide sources into those that go to one process each, and scenes that all share.

    All share scenes that are read by windows, and every image where there are fewer than processes.

    Args:
        sources: Of the run.
        count: How many they are.
        options: How images are cut; without slices nothing can be shared.
        world: The processes.
    """
    alone: list[Source] = []
    together: list[SourceImage] = []
    can = world.size > 1 and options.slices is not None
    for source in sources:
        if can and isinstance(source, SourceImage) and (count < world.size or source.by_windows):
            together.append(source)
        else:
            alone.append(source)
    return alone, together


def stream_together(
    predictor: Predictor,
    images: Iterable[SourceImage],
    options: PredictOptions,
    notes: Notes,
    world: World,
) -> Iterator[Results]:
    """Yield the results of scenes in the main process, of which each process does its part.

    Args:
        predictor: The network.
        images: The same in all processes.
        options: How.
        notes: Of the main process; is told what was skipped, shrunk or cut off.
        world: The processes.
    """
    part = replace(options, part=Part(world.rank, world.size))
    for image in images:
        own = Notes()
        job = _run(predictor, image, part, own)
        entries = None
        if job is not None and isinstance(job.merger, Collected):
            entries = job.merger.entries
        spent = job.milliseconds if job is not None else {}
        shards = gather(world, Shard(entries, job is not None and job.full, own, spent))
        if not world.is_main:
            continue
        every = joined([shard.notes for shard in shards])
        failed = job is None or any(shard.entries is None for shard in shards)
        # All have read the image and noted the same of it, but for the slices that were empty.
        own.slices, own.empty = every.slices, every.empty
        own.images, own.skipped = int(not failed), every.skipped[:1]
        notes.take(own)
        if job is None or failed:
            continue
        results = predictor.finish(_whole(job, shards, options), options, notes)
        yield replace(results, frame=image.frame, time=image.seconds)


def _run(
    predictor: Predictor, image: SourceImage, options: PredictOptions, notes: Notes
) -> Job | None:
    """Run this process's part of an image; None where it cannot be read."""
    waiting: deque[Job] = deque()
    predictor.run([image], options, notes, waiting)
    return waiting[0] if waiting and waiting[0].is_done else None


def _whole(job: Job, shards: list[Shard], options: PredictOptions) -> Job:
    """Return the job of the whole image, as if one process had run it."""
    merger = options.merger(job.cut.tiles, job.shape)
    for shard in shards:
        for entry in shard.entries or ():
            merger.add(*entry)
    job.full = any(shard.full for shard in shards)
    for shard in shards[1:]:
        for stage, spent in shard.milliseconds.items():
            job.milliseconds[stage] = job.milliseconds.get(stage, 0.0) + spent
    job.merger = merger
    return job
