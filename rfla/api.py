"""The Python API: `RFLA("fcos_p2").train(data="demo")`, `.val(...)`, `.predict(...)`."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rfla.cfg import Config, load_config, model_part
from rfla.cfg.keywords import ExportSettings, PredictSettings, TrainSettings, ValSettings
from rfla.cfg.layer_files import is_file_of_ours
from rfla.cfg.preflight import check_early
from rfla.errors import ConfigError, shorten
from rfla.names import Channels
from rfla.predict.sources import Given
from rfla.results import Results

if TYPE_CHECKING:
    from rfla.engine.hooks import Hooks
    from rfla.metrics import Metrics
    from rfla.predict.predictor import Predictor

LOG = logging.getLogger("rfla")
BUILDING = Lock()  # threads that share an object build its network once


class RFLA:
    """A detector for objects of 2 to 32 pixels.

    Args:
        model: A zoo name (`"fcos_p2"`), a model YAML, a weights file (`"best.safetensors"`), or an
            exported network (`"best.onnx"`), which cannot be trained.

    Raises:
        RflaError: There is no such model.
    """

    def __init__(self, model: str | Path = "fcos_p2"):
        self.model = _lasting(str(model))
        if not self.model.strip():
            raise ConfigError("model is an empty string; a zoo name or a weights file is needed")
        self._built: tuple[Any, Predictor] | None = None
        self._said: set[str] = set()  # notes of predictions
        load_config({"model": self.model})  # finds a misspelt name before any data is read

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it builds the network anew."""
        return self.__dict__ | {"_built": None}

    def __repr__(self) -> str:
        return f"RFLA({self.model!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Class names of a weights file or an exported network; empty before training."""
        if not is_file_of_ours(self.model):
            return ()
        from rfla.models.weights import read_metadata

        return tuple(read_metadata(self.model)["names"])

    def train(
        self, *, hooks: "Hooks | None" = None, **settings: Unpack[TrainSettings]
    ) -> "Metrics | None":
        """Train; afterwards `self.model` is the best weights of the run.

        Args:
            hooks: Your own code at six moments of the run (`rfla.engine.hooks.Hooks`).
            **settings: The keys of the command line. A section is a dict: `aug={"fliplr": 0}`,
                `assigner={"topk": [3, 1]}`; or dotted, `**{"assigner.topk": [3, 1]}`. `resume=RUN`
                (or True: the latest) goes on with the model of that run, not of this object.

        Returns:
            Figures of the best weights on the validation split; None with `val=False` and with
            several GPUs (`device="0,1"`).

        Raises:
            RflaError: Settings, data or weights that cannot be used, in one line.
        """
        own = self._own(settings)
        if settings.get("resume"):
            del own["model"]
        cfg = load_config(own, mode="train")
        check_early(cfg, "train")
        from rfla.engine.hooks import Hooks
        from rfla.engine.trainer import train
        from rfla.tools.demo import prepare_demo

        if hooks is not None and not isinstance(hooks, Hooks):
            raise ConfigError(f"hooks={shorten(hooks)}: must be one rfla.engine.hooks.Hooks")

        prepare_demo(cfg.data or "")
        result = train(cfg, hooks)
        self.model = _lasting(str(result.best))
        return result.metrics

    def val(self, **settings: Unpack[ValSettings]) -> "Metrics":
        """Evaluate on a split of `data=`, and write what `rfla val` writes.

        Args:
            **settings: The keys of the command line: `data="aitod"`, `split="test"`, `conf=0.01`,
                `slice=800`, ...

        Returns:
            The figures: `metrics.ap`, `metrics.ap_vt`, ...; -1 where undefined.

        Raises:
            RflaError: Settings, data or weights that cannot be used, in one line.
        """
        cfg = load_config(self._own(settings), mode="val")
        check_early(cfg, "val")
        from rfla.predict.validation import validate
        from rfla.tools.demo import prepare_demo

        prepare_demo(cfg.data or "")
        return validate(cfg)

    @overload
    def predict(
        self,
        source: Given,
        *,
        stream: Literal[False] = False,
        channels: Channels = "rgb",
        **settings: Unpack[PredictSettings],
    ) -> list[Results]: ...

    @overload
    def predict(
        self,
        source: Given,
        *,
        stream: Literal[True],
        channels: Channels = "rgb",
        **settings: Unpack[PredictSettings],
    ) -> Iterator[Results]: ...

    def predict(
        self,
        source: Given,
        *,
        stream: bool = False,
        channels: Channels = "rgb",
        **settings: Unpack[PredictSettings],
    ) -> list[Results] | Iterator[Results]:
        """Detect objects. The network is built at the first call and kept.

        Args:
            source: An image or video file, a directory, a glob pattern, a .txt list, an http(s)
                address, the number of a camera, an (H, W, 3) or grey (H, W) array of uint8 or
                uint16, a tensor (3, H, W), a PIL image, or a list or an iterator of those.
            stream: Return an iterator that holds one batch in memory instead of a list: for
                videos, cameras and iterators without an end.
            channels: Order of the colours in arrays and tensors: `"bgr"` for what `cv2.imread`
                returns.
            **settings: The keys of the command line: `conf=0.3`, `imgsz=800`, `slice=800`,
                `classes=["ship"]`, ...

        Returns:
            One `Results` for each readable image, page or frame. Files are written where
            `save=True`, `save_txt=True`, `save_video=True`, ... ask for them, as the command
            writes them.

        Raises:
            DataError: There is no image, or the list is empty.
            ConfigError: The model is not trained yet; `resume=`; a camera without `stream=True`; a
                setting of outputs of which none is written.
            WeightsError: The weights file is missing, damaged, or not of this package.
        """
        from rfla.data.image_header import set_max_pixels
        from rfla.predict.notes import Notes
        from rfla.predict.options import PredictOptions
        from rfla.predict.prefetch import images_of
        from rfla.predict.python_outputs import with_given_outputs, writes, written
        from rfla.predict.sources import are_live, find_sources, refuse_endless

        named = str(source) if isinstance(source, str | Path) else "given"
        if settings.get("resume"):
            raise ConfigError("resume= takes up a run of the command: rfla predict resume=DIR")
        cfg = load_config({"source": named} | self._own(settings), mode="predict")
        cfg = with_given_outputs(cfg)
        set_max_pixels(cfg.max_pixels)
        sources = find_sources(source, channels, recursive=cfg.recursive, stream=stream)
        refuse_endless(sources, stream)
        predictor = self._predictor(cfg)
        where, live = predictor.inference.device, are_live(sources)
        options = PredictOptions.from_config(cfg, predictor.model, device=where, live=live)

        def run() -> Iterator[Results]:
            notes = Notes()
            images = images_of(sources, options.reading)
            results = predictor.stream(images, options, notes)
            yield from written(results, sources, cfg, notes) if writes(cfg) else results
            lines = notes.lines(options.imgsz, options.limits.max_det, options.slices is not None)
            # A loop over frames calls this for each: what holds for all of them is said once.
            new = [line for line in lines if line not in self._said]
            self._said.update(new)
            for line in [*notes.skipped, *notes.left_out, *new]:
                LOG.warning(line)

        return run() if stream else list(run())

    __call__ = predict

    def export(self, **settings: Unpack[ExportSettings]) -> Path:
        """Write the network as a file for other programs, after comparing it with torch.

        Args:
            **settings: The keys of the command line: `format="onnx"`, `half=True`, ...

        Returns:
            Path of the file.

        Raises:
            ConfigError: The model is not trained yet, the extra [export] is not installed, or the
                export does not find what the network finds.
        """
        from rfla.cfg.verbs import ExportOptions, checked_options
        from rfla.export.command import export

        exported = export(checked_options(self._own(settings), ExportOptions))
        LOG.info(exported.report)
        return exported.path

    def _own(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings with the model of this object.

        Raises:
            ConfigError: They name a model too.
        """
        if "model" in settings:
            another = f"RFLA({str(settings['model'])!r})"
            raise ConfigError(f"model: {self!r} has its own; for another one make {another}")
        return {"model": self.model, **settings}

    def _predictor(self, cfg: Config) -> "Predictor":
        """Return the network on its device: that of the last call unless a setting changed it."""
        from rfla.engine.device import select_device
        from rfla.models.limits import build_limits
        from rfla.predict.model import load_model
        from rfla.predict.predictor import Predictor

        config = model_part(cfg)
        file = Path(self.model)
        changed = file.stat().st_mtime_ns if file.is_file() else 0
        # What is kept of the detections does not need another network.
        network = config.model_copy(update={"test": None})
        built_from = (self.model, changed, network, cfg.device, cfg.amp)
        with BUILDING:
            if self._built is None or self._built[0] != built_from:
                device = select_device(cfg.device)
                model = load_model(self.model, config, device)
                self._built = built_from, Predictor(model, device, cfg.amp)
            predictor = self._built[1]
        predictor.use_limits(build_limits(config.test))  # an exported network may refuse them
        return predictor


def _lasting(model: str) -> str:
    """Return the path of a file so that it stays this file where the working directory changes."""
    return os.path.abspath(model) if os.path.splitext(model)[1] and os.path.isfile(model) else model
