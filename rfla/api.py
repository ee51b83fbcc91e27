"""The Python face: `RFLA("fcos_p2").train(data="demo")`, `.val(...)`, `.predict(...)`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rfla.cfg import load_config, model_part
from rfla.engine.sources import Source
from rfla.results import Results

if TYPE_CHECKING:
    from rfla.engine.hooks import Hooks
    from rfla.metrics import Metrics


class RFLA:
    """A detector for objects of 2 to 32 pixels.

    Args:
        model: A zoo name (`"fcos_p2"`), a model YAML, or a weights file (`"best.safetensors"`).

    Raises:
        RflaError: There is no such model.
    """

    def __init__(self, model: str | Path = "fcos_p2"):
        self.model = str(model)
        load_config(
            {"model": self.model}
        )  # a misspelt name is told here, not after the data was read

    def __repr__(self) -> str:
        return f"RFLA({self.model!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Class names of a weights file; empty for a model that is not trained yet."""
        if not self.model.endswith(".safetensors"):
            return ()
        from rfla.models.weights import read_metadata

        return tuple(read_metadata(self.model)["names"])

    def train(self, *, hooks: "Hooks | None" = None, **settings: Any) -> "Metrics | None":
        """Train, and become the best weights of the run.

        Args:
            hooks: Your own code at six moments of the run.
            **settings: The keys of the command line; a dotted one is written `**{"assigner.topk":
                [3, 1]}`.

        Returns:
            Figures of the best weights on the validation split, or None with `val=False`.
        """
        from rfla.engine.trainer import train
        from rfla.tools.demo import prepare_demo

        cfg = load_config({"model": self.model, **settings}, mode="train")
        prepare_demo(cfg.data or "")
        result = train(cfg, hooks)
        self.model = str(result.best)
        return result.metrics

    def val(self, **settings: Any) -> "Metrics":
        """Validate on a split of `data=`; returns its figures."""
        from rfla.engine.validator import validate
        from rfla.tools.demo import prepare_demo

        cfg = load_config({"model": self.model, **settings}, mode="val")
        prepare_demo(cfg.data or "")
        return validate(cfg)

    @overload
    def predict(
        self, source: Source, *, stream: Literal[False] = False, **settings: Any
    ) -> list[Results]: ...

    @overload
    def predict(
        self, source: Source, *, stream: Literal[True], **settings: Any
    ) -> Iterator[Results]: ...

    def predict(
        self, source: Source, *, stream: bool = False, **settings: Any
    ) -> list[Results] | Iterator[Results]:
        """Detect objects.

        Args:
            source: An image file, a directory, a glob pattern, a .txt list, an (H, W, 3) uint8 RGB
                array, a PIL image, or a list of those.
            stream: Return an iterator that holds one batch in memory instead of a list.
            **settings: The keys of the command line: `conf=0.3`, `imgsz=800`, `classes=["ship"]`,
                ...

        Returns:
            One `Results` for each readable image. Nothing is written; see `Results.save`.

        Raises:
            DataError: There is no image.
            ConfigError: The model is not trained yet.
        """
        from rfla.engine.device import select_device
        from rfla.engine.model_source import load_trained
        from rfla.engine.predictor import Predictor, class_indices
        from rfla.engine.sources import find_images

        cfg = load_config({"model": self.model, "source": "given", **settings}, mode="predict")
        model = load_trained(self.model, model_part(cfg))
        device = select_device(cfg.device)
        predictor = Predictor(
            model, cfg.imgsz, device, cfg.amp, class_indices(cfg.classes, model.names)
        )
        results = predictor.stream(find_images(source), max(1, cfg.batch))
        return results if stream else list(results)

    __call__ = predict
