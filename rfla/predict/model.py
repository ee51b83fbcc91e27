"""Open the file of `model=`, weights or an exported network, for whoever runs it."""

import torch

from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.weights_header import is_exported
from rfla.engine.model_source import SourceModel, load_trained


def load_model(model: str, config: ModelConfig, device: torch.device) -> SourceModel:
    """Open a model that is to run.

    Args:
        model: a .safetensors file, whose network torch runs, or an .onnx file of `rfla export`,
            which onnxruntime runs.
        config: its settings with other values where a person gave them (`conf=0.3`).
        device: where it will compute.

    Raises:
        ConfigError: a zoo name or a model YAML, which has no weights, or settings that are fixed
            in an exported network.
        WeightsError: no such file, damaged, or not ours.
    """
    if is_exported(model):
        from rfla.export.session import load_exported  # here, as most runs need none of it

        return load_exported(model, config, device)
    return load_trained(model, config)
