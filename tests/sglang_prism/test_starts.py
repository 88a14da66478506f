"""Servers as users start them, up to where SGLang would load weights: no engine, seconds.

Each case failed once, with a message that leads nobody to its cause, or ran with other numbers than the target.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sglang_models import DRAFTERS, TARGET
from stand_in_process import needs_sglang, run

from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.model import Drafter
from prism_ae.models.checkpoints import save_target
from prism_ae.models.llama import Llama

pytestmark = needs_sglang

DTYPES = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float16", None: "float16"}
"""What a target's config says -> what SGLang runs it in."""

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclasses.dataclass(frozen=True)
class Models:
    """Folders of a target per dtype, of drafters, and a Hugging Face cache that holds some of them."""

    folder: Path
    cache: Path

    def target(self, dtype: str | None = "bfloat16") -> str:
        return str(self.folder / f"target-{dtype}")

    def drafter(self, name: str) -> str:
        return str(self.folder / name)

    def arguments(self, drafter: str = "prism", **changes: Any) -> dict[str, Any]:
        given = {
            "model_path": self.target(),
            "speculative_algorithm": "PRISM",
            "speculative_draft_model_path": self.drafter(drafter),
            "speculative_num_steps": 5,
            "speculative_eagle_topk": 4,
            "speculative_num_draft_tokens": 16,
            "device": "cpu",
            "skip_tokenizer_init": True,
        }
        return {name: value for name, value in {**given, **changes}.items() if value is not None}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    target = Llama(TARGET)
    for dtype in DTYPES:
        place = folder / f"target-{dtype}"
        place.mkdir()
        save_target(place, target)
        _change(place, lambda config, dtype=dtype: config | {"torch_dtype": dtype} if dtype else _without(config))
    for name in ("prism", "prism_star", "eagle3"):
        (folder / name).mkdir()
        save_drafter(folder / name, Drafter(DRAFTERS[name], target))
    # A target that reads more than its drafter was made for, as EAGLE's published heads say 2048 to Llama-3's 8192.
    shutil.copytree(folder / "target-bfloat16", folder / "long")
    _change(folder / "long", lambda config: config | {"max_position_embeddings": 4096})
    quantised = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    shutil.copytree(folder / "target-bfloat16", folder / "fp8")
    _change(folder / "fp8", lambda config: config | {"quantization_config": quantised})
    cache = folder / "hub"
    for name, source in (("org/target", "target-bfloat16"), ("org/drafter", "prism")):
        repository = cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder / source, repository / "snapshots" / REVISION)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(REVISION)
        (repository / "refs" / "v1").write_text(REVISION)
    return Models(folder, cache)


def _change(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype")}


@pytest.fixture(scope="module")
def found(models: Models) -> dict[str, dict[str, Any]]:
    """Every case's outcome, in one process: importing SGLang takes longest."""
    cases: dict[str, dict[str, Any]] = {
        **{f"target says {dtype}": _case(models, model_path=models.target(dtype)) for dtype in DTYPES},
        "dtype given": _case(models, dtype="float32"),
        **{name: _case(models, name) for name in ("prism_star", "eagle3")},
        "longer target": _case(models, model_path=str(models.folder / "long")),
        "context given": _case(models, model_path=str(models.folder / "long"), context_length=1000),
        "fp8 on this CPU": _case(models, quantization="fp8"),
        "fp8 target on this CPU": _case(models, model_path=str(models.folder / "fp8")),
        "fp8 drafter on this CPU": _case(models, speculative_draft_model_quantization="fp8"),
        "fp8 given": _interpreted(models, quantization="fp8"),
        "fp8 given for both": _interpreted(models, quantization="fp8", speculative_draft_model_quantization="fp8"),
        "fp8 target": _interpreted(models, model_path=str(models.folder / "fp8")),
        "awq drafter": _case(models, speculative_draft_model_quantization="awq"),
        "hub ids": _hub(models, "org/drafter"),
        "hub revisions": _hub(models, "org/drafter", revision="v1", speculative_draft_model_revision="v1"),
        "hub revision unknown": _hub(models, "org/drafter", speculative_draft_model_revision="v2"),
        "hub id unknown": _hub(models, "org/nothing"),
        "no such folder": _case(models, speculative_draft_model_path="nothing/is/here"),
        "no drafter": _case(models, speculative_draft_model_path=None),
        "again": {**_case(models, "prism_star"), "again": True},
        "SGLang's own tree": _case(
            models, speculative_num_steps=None, speculative_eagle_topk=None, speculative_num_draft_tokens=None
        ),
        "no steps": _case(models, speculative_num_steps=0),
        "no branch": _case(models, speculative_eagle_topk=0),
        "one token": _case(models, speculative_num_draft_tokens=1),
        "more tokens than the tree has": _case(
            models, speculative_num_steps=1, speculative_eagle_topk=2, speculative_num_draft_tokens=64
        ),
        "branch above the vocabulary": _case(models, speculative_eagle_topk=2000),
        "tokenizer workers": _case(models, tokenizer_worker_num=2),
        "multi-layer": _case(models, enable_multi_layer_eagle=True),
        "processors": _case(models, enable_custom_logit_processor=True),
        "disaggregated": _case(models, disaggregation_mode="decode"),
        "adaptive": _case(models, speculative_adaptive=True, speculative_eagle_topk=1),
        "rejection sampling": _case(models, speculative_use_rejection_sampling=True, speculative_eagle_topk=1),
        "window": _case(models, "eagle3", speculative_draft_window_size=64),
        "lora": _case(models, enable_lora=True, lora_paths=["x=y"]),
        "stages": _case(models, pp_size=2),
    }
    given = json.dumps(list(cases.values()))
    out = run("sglang_starts_oracle.py", given, HF_HUB_CACHE=str(models.cache), HF_HUB_OFFLINE="1")
    return dict(zip(cases, json.loads(out.splitlines()[-1]), strict=True))


def _case(models: Models, drafter: str = "prism", **changes: Any) -> dict[str, Any]:
    return {"arguments": models.arguments(drafter, **changes)}


def _interpreted(models: Models, **changes: Any) -> dict[str, Any]:
    """Where the kernels of a quantised model can be computed, if only by an interpreter."""
    return {**_case(models, **changes), "environment": {"TRITON_INTERPRET": "1"}}


def _hub(models: Models, drafter: str, **changes: Any) -> dict[str, Any]:
    """By the names of repositories, without a network, from a cache."""
    named = {"model_path": "org/target", "speculative_draft_model_path": drafter}
    return {"arguments": models.arguments(**named, **changes)}


@pytest.mark.parametrize(("says", "dtype"), DTYPES.items())
def test_the_drafter_runs_in_the_targets_dtype(says: str | None, dtype: str, found: dict[str, Any]) -> None:
    assert found[f"target says {says}"]["dtypes"] == [f"torch.{dtype}"] * 2


def test_a_dtype_that_is_given_is_both_models(found: dict[str, Any]) -> None:
    assert found["dtype given"]["dtypes"] == ["torch.float32"] * 2


def test_the_checkpoint_decides_the_algorithm(models: Models, found: dict[str, Any]) -> None:
    assert found["dtype given"]["algorithm"] == "PRISM"
    for name, model in (("prism_star", "PrismDraftModel"), ("eagle3", "PrismEagle3DraftModel")):
        assert found[name]["algorithm"] == "PRISM_CAPTURED"
        assert found[name]["model"] == model
        assert found[name]["drafter"] == models.drafter(name)


def test_a_target_may_read_more_than_its_drafter_was_made_for(found: dict[str, Any]) -> None:
    assert found["longer target"]["contexts"] == [4096, 4096]
    assert found["context given"]["contexts"] == [1000, 1000]


def test_a_targets_quantisation_is_its_own(found: dict[str, Any]) -> None:
    assert found["fp8 given"]["quantization"] == ["fp8", None]
    assert found["fp8 given for both"]["quantization"] == ["fp8", "fp8"]
    assert found["fp8 target"]["quantization"][1] is None
    assert found["fp8 target"]["dtypes"] == ["torch.bfloat16"] * 2
    assert "--speculative-draft-model-quantization" in found["awq drafter"]["error"]


def test_repositories_are_found_as_sglang_finds_them(models: Models, found: dict[str, Any]) -> None:
    snapshot = models.cache / "models--org--drafter" / "snapshots" / REVISION
    for case in ("hub ids", "hub revisions"):
        assert found[case]["drafter"] == str(snapshot.resolve())
        assert found[case]["dtypes"] == ["torch.bfloat16"] * 2


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("hub revision unknown", "org/drafter: no such folder, and no repository"),
        ("hub id unknown", "org/nothing: no such folder, and no repository"),
        ("no such folder", "nothing/is/here: no such folder, and no repository"),
        ("no drafter", "needs --speculative-draft-model-path"),
        ("no steps", "steps and branch must be at least 1"),
        ("no branch", "steps and branch must be at least 1"),
        ("one token", "at least 2 tokens must be verified"),
        ("more tokens than the tree has", "at most 3 can be verified, not 64"),
        ("branch above the vocabulary", "branch 2000 of a vocabulary of 30 tokens"),
        ("fp8 on this CPU", "fp8 cannot be served on this CPU"),
        ("fp8 target on this CPU", "fp8 cannot be served on this CPU"),
        ("fp8 drafter on this CPU", "fp8 cannot be served on this CPU"),
        ("tokenizer workers", "--tokenizer-worker-num"),
        ("multi-layer", "--enable-multi-layer-eagle"),
        ("processors", "--enable-custom-logit-processor"),
        ("disaggregated", "--disaggregation-mode"),
        ("rejection sampling", "rejection-sampling is only supported for"),
        ("lora", "LoRA"),
        ("stages", "ipeline"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_loaded(
    case: str, says: str, found: dict[str, Any]
) -> None:
    assert says in found[case]["error"]


@pytest.mark.parametrize("case", ["again", "SGLang's own tree", "adaptive", "window"])
def test_other_ways_to_start_are_served(case: str, found: dict[str, Any]) -> None:
    assert "error" not in found[case], found[case]
