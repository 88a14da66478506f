"""How an SGLang engine is started: from what is asked to the options and the environment of ``sglang.Engine``.
Pure.

Every option is written down here, none is left to what another version takes for granted where it would change a
number. A test compares the names with those that the pinned version knows.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_ae.cells import TreeShape
from prism_ae.sglang_prism.refusals import falsifying_variables
from prism_ae.suites.compat import GRAPHS_BATCH_1

ACCEPTANCE_BATCH = 8
"""Requests in flight where time is not measured: the numbers do not depend on it."""

SLACK = 16
"""Positions beyond prompt and answer that SGLang keeps for itself."""

GPU_ATTENTION = "flashinfer"
"""One set of attention kernels for vanilla decoding and every drafter. Left to itself, SGLang takes other kernels for
trees than for vanilla and chains on some GPUs, and a speed-up would compare those. This is its own choice for trees."""


@dataclasses.dataclass(frozen=True)
class EngineSetup:
    """Everything that a running engine cannot change: another one needs another start.

    Attributes:
        target: folder.
        drafter: folder of the first drafter; later ones of the same architecture are swapped in. None for vanilla.
        architecture: of the drafter, as text; "" for vanilla, "standard" for a separate model.
        tree, batch, max_seq_len: the largest that is asked for.
        drafting: "exact" or "stock".
        device: "cpu" or "cuda:0".
        server_flags: the authors' choices that concern the server.
    """

    target: Path
    drafter: Path | None
    architecture: str
    tree: TreeShape | None
    batch: int
    max_seq_len: int
    dtype: str
    seed: int
    drafting: str
    device: str
    server_flags: tuple[str, ...]

    def serves(self, other: EngineSetup) -> bool:
        """Whether an engine that was started for this setup can be configured for the other one.

        On a GPU tree and drafting are part of captured graphs; on a CPU both are changed while it runs.
        """
        ours, theirs = (dataclasses.replace(setup, drafter=None, batch=0, max_seq_len=0) for setup in (self, other))
        if self.device == "cpu":
            ours, theirs = (dataclasses.replace(setup, tree=None, drafting="") for setup in (ours, theirs))
        large = self.batch >= other.batch and self.max_seq_len >= other.max_seq_len
        return ours == theirs and large and _within(other, self)


def _within(small: EngineSetup, large: EngineSetup) -> bool:
    if small.tree is None or large.tree is None:
        return small.tree == large.tree
    return all(a <= b for a, b in zip(dataclasses.astuple(small.tree), dataclasses.astuple(large.tree), strict=True))


def engine_options(setup: EngineSetup) -> dict[str, Any]:
    """Keyword arguments of ``sglang.Engine``."""
    on_cpu = setup.device == "cpu"
    # SGLang counts a round's drafts as part of a request's text when it checks whether the request fits.
    context = setup.max_seq_len + SLACK + _reserved(setup.tree)
    options: dict[str, Any] = {
        "model_path": str(setup.target),
        "skip_tokenizer_init": True,  # token ids go in and come out: prompts are made by this project
        "trust_remote_code": False,
        "dtype": setup.dtype,
        "context_length": context,
        "max_running_requests": setup.batch,
        "random_seed": setup.seed,
        "disable_radix_cache": False,
        "page_size": 1,  # as exact drafting needs it, and so for every drafter
        "log_level": "info",
        "decode_log_interval": 1_000_000,
        "device": "cpu" if on_cpu else "cuda",
    }
    if on_cpu:
        options |= {
            "attention_backend": "intel_amx",
            "sampling_backend": "pytorch",
            "disable_cuda_graph": True,
            "disable_overlap_schedule": True,  # SGLang has none for drafting on a CPU; so vanilla has none either
            "sleep_on_idle": True,  # it would take a core from the engine that is measured beside it
            "mem_fraction_static": 0.2,
            "max_total_tokens": setup.batch * (context + 2 * _reserved(setup.tree)) + 4096,
        }
    else:
        options |= {
            "attention_backend": GPU_ATTENTION,
            "sampling_backend": "flashinfer",
            "cuda_graph_max_bs_decode": 1 if GRAPHS_BATCH_1 in setup.server_flags else setup.batch,
        }
    if setup.tree is not None:
        options |= {
            "speculative_algorithm": "STANDALONE" if setup.architecture == "standard" else "PRISM",
            "speculative_draft_model_path": str(setup.drafter),
            "speculative_num_steps": setup.tree.steps,
            "speculative_eagle_topk": setup.tree.branch,
            "speculative_num_draft_tokens": setup.tree.verified,
        }
    return options


def _reserved(tree: TreeShape | None) -> int:
    """Slots that SGLang reserves per request for a round."""
    return max(tree.steps * tree.branch, tree.verified) if tree else 1


def engine_environment(
    setup: EngineSetup, stand_ins: list[Path], threads: int, ours: Mapping[str, str] | None = None
) -> Mapping[str, str | None]:
    """Variables of the engine's processes, added to those of this one; ``PYTHONPATH`` goes in front.

    None takes a variable away: what would falsify a measurement, and a choice of plugins without this one.

    Args:
        ours: this process's variables.
    """
    ours = os.environ if ours is None else ours
    environment: dict[str, str | None] = dict.fromkeys([*falsifying_variables(ours), "SGLANG_PLUGINS"])
    environment |= {
        "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",
        "PRISM_AE_DRAFTING": setup.drafting,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **compiler_caches(ours),
    }
    if setup.device == "cpu":
        environment |= {
            "SGLANG_USE_CPU_ENGINE": "1",
            "TORCHDYNAMO_DISABLE": "1",  # otherwise the first draft waits half a minute for a compiler
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in stand_ins),
        }
    return environment


def compiler_caches(ours: Mapping[str, str]) -> dict[str, str]:
    """Where compiled kernels are kept from one start to the next: an engine's own temporary folder goes with it."""
    cache = Path(ours.get("XDG_CACHE_HOME") or Path(ours.get("HOME") or "~").expanduser() / ".cache") / "prism-ae"
    folders = {"TORCHINDUCTOR_CACHE_DIR": cache / "inductor", "TRITON_CACHE_DIR": cache / "triton"}
    return {name: ours.get(name) or str(folder) for name, folder in folders.items()}


def architecture_text(config: Any) -> str:
    """A drafter's config as text: drafters with the same one can be swapped by their weights."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
