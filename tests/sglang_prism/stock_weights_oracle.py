"""Run in a process of its own: what stock SGLang's loader makes of drafters' folders, without a server.

Reads {"target": folder, "drafters": {name: folder}} and prints {name: what was seen} as JSON. Every parameter is filled
with NaN before it is loaded, as empty memory may be: what is not a number afterwards was silently left out.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from sglang.srt.configs.device_config import DeviceConfig
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import init_distributed_environment, initialize_model_parallel
from sglang.srt.model_loader.loader import DefaultModelLoader
from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler


class Warnings(logging.Handler):
    """Of tensors that the loader does not know."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


class Loader(DefaultModelLoader):
    """SGLang's own, watched."""

    read: list[str]

    def load_weights_and_postprocess(self, model: Any, weights: Iterable[Any], target_device: Any) -> None:
        for parameter in model.parameters():
            parameter.data.fill_(float("nan"))

        def watched() -> Iterator[Any]:
            for name, tensor in weights:
                self.read.append(name)
                yield name, tensor

        self.read = []
        DefaultModelLoader.load_weights_and_postprocess(model, watched(), target_device)


def mark(tensor: torch.Tensor) -> float:
    """A number that depends on every value and its place."""
    flat = tensor.double().flatten()
    return float((flat * torch.arange(1, len(flat) + 1)).sum())


def loaded(folder: str, server_args: ServerArgs) -> dict[str, Any]:
    warnings = Warnings()
    logging.getLogger("sglang").addHandler(warnings)
    config = ModelConfig.from_server_args(server_args, model_path=folder, is_draft_model=True)
    loader = Loader(LoadConfig())
    model = loader.load_model(model_config=config, device_config=DeviceConfig("cpu"))
    logging.getLogger("sglang").removeHandler(warnings)
    rope = {module.base for module in model.modules() if hasattr(module, "base") and hasattr(module, "rotary_dim")}
    hot = getattr(model, "hot_token_id", None)
    return {
        "class": f"{type(model).__module__}.{type(model).__name__}",
        "read": sorted(loader.read),
        "left out": sorted(name for name, tensor in model.named_parameters() if tensor.isnan().any()),
        "unknown": [text for text in warnings.seen if "not found in params_dict" in text],
        "rope": sorted(rope),
        "dtype": str(next(model.parameters()).dtype),
        "draft ids": None if hot is None else hot.tolist(),
        "marks": {name: mark(tensor) for name, tensor in model.named_parameters()},
    }


def main() -> None:
    asked = json.load(sys.stdin)
    server_args = ServerArgs(
        model_path=asked["target"],
        device="cpu",
        attention_backend="intel_amx",
        sampling_backend="pytorch",
        disable_cuda_graph=True,
        skip_tokenizer_init=True,
    )
    set_global_server_args_for_scheduler(server_args)
    place = Path(tempfile.mkdtemp()) / "meet"
    init_distributed_environment(
        backend="gloo", world_size=1, rank=0, local_rank=0, distributed_init_method=f"file://{place}"
    )
    initialize_model_parallel(1)
    found = {name: loaded(folder, server_args) for name, folder in asked["drafters"].items()}
    print(json.dumps(found))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
