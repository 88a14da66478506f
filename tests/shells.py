"""Folders that look like checkpoints to everything that does not run them: configs, names of tensors, tokenizers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizer_files import LLAMA_2_RULES, LLAMA_3_RULES, OLD, THREE, VOCABULARY

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.configs import FORMAT
from prism_ae.hub.selection import folders_of_target
from prism_ae.models.config import LlamaConfig
from prism_ae.suites.records import Suite

CONFIG = LlamaConfig(VOCABULARY, 8, 16, 32, 2, 1, 1e-5, 10000.0, 4096)


def write_target(folder: Path, role: str) -> None:
    """A Llama of 32 layers without most of its weights, with a tokenizer of its role's kind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    two = role == "llama-2"
    (folder / "tokenizer.json").write_text(OLD if two else THREE)
    (folder / "tokenizer_config.json").write_text(json.dumps(LLAMA_2_RULES if two else LLAMA_3_RULES))
    save_file({"lm_head.weight": np.zeros(1, np.float32)}, folder / "model.safetensors")


def write_drafter(folder: Path) -> None:
    """A draft head of one module for such a target, without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = DrafterConfig("eagle", dataclasses.replace(CONFIG, num_hidden_layers=1))
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, **config.fields()}))
    save_file({"modules.0.fusion.bias": np.zeros(8, np.float32)}, folder / "model.safetensors")


def write_suite_folders(models: Path, suite: Suite, names: list[str]) -> None:
    """Those of a downloaded suite's folders; its targets and separate models are Llamas, all others draft heads."""
    for target in suite.targets.values():
        for name in {target.folder, *folders_of_target(suite, target.name)} & set(names):
            if name in (target.folder, target.small_folder):
                write_target(models / name, target.roles[0])
            else:
                write_drafter(models / name)
