"""Files of results that a call from Python asks for: as the command's, but none unless named."""

from collections.abc import Iterable, Iterator, Sequence

from rfla.cfg import Config
from rfla.engine.distributed import World
from rfla.engine.run_dir import claim_run_dir
from rfla.errors import ConfigError
from rfla.predict.notes import Notes
from rfla.predict.outputs import OUTPUTS, Outputs
from rfla.predict.source_image import Source
from rfla.results import Results

# Settings that change files alone.
OF_OUTPUTS = frozenset(
    {"save_conf", "name", "project", "exist_ok", "line_width", "show_labels", "legend", "scale"}
)
# Outputs that the command writes unless told otherwise, and how Python does not.
OFF: dict[str, bool | str] = {"save": False, "geo": "off"}


def written(
    results: Iterable[Results], sources: Sequence[Source], cfg: Config, notes: Notes
) -> Iterator[Results]:
    """Pass results on, and write them into a run directory as the command does."""
    names = (source.name for source in sources)
    with claim_run_dir(cfg, World(), "predict", names) as run_dir:
        outputs = Outputs(run_dir, sources, cfg)
        try:
            for result in results:
                outputs.write(result)
                yield result
        finally:
            notes.left_out += outputs.left_out
            outputs.rescue()


def with_given_outputs(cfg: Config) -> Config:
    """Return settings with the outputs that were named, and no others: Python writes on request.

    Raises:
        ConfigError: A setting of outputs without one.
    """
    defaults = {key: OFF[key] for key in OFF.keys() - cfg.given}
    cfg = cfg.model_copy(update=defaults)
    useless = sorted(OF_OUTPUTS & cfg.given)
    if useless and not writes(cfg):
        keys = dict.fromkeys(output.key for output in OUTPUTS if output.key)
        ways = ", ".join(f"{key}=True" for key in keys if key != "geo")
        raise ConfigError(f"{', '.join(useless)}: nothing is written without {ways}")
    return cfg


def writes(cfg: Config) -> bool:
    """Whether any file of results is asked for."""
    return any(output.wanted(cfg) for output in OUTPUTS if output.key)
