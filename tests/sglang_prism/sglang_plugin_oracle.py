"""Run in a process of its own, without a nonce: what SGLang knows of what this project uses, and what its plugins do.

Prints JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import pkgutil
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.models.registry import ModelRegistry
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs
from sglang.srt.speculative import spec_utils
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from prism_ae.sglang_prism import control, drafting, plugin, stages
from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED

OWN = [*stages.HOOKS, *control.OWN_HOOKS, *control.MAIN_HOOKS]
LOOKS_UP_A_MODEL = "sglang.srt.model_loader.utils.get_model_architecture"


def signature(target: str) -> list[str]:
    """Names of a function's parameters, the original's where it is wrapped already."""
    return list(inspect.signature(pkgutil.resolve_name(target)).parameters)


def questions_of(algorithm: Any) -> dict[str, Any]:
    """What SGLang asks an algorithm; a method that takes nothing, by its answer."""
    answers = {}
    for name in dir(SpeculativeAlgorithm.EAGLE):
        function = getattr(SpeculativeAlgorithm, name, None)
        if not name.startswith("_") and inspect.isfunction(function):
            assert callable(getattr(algorithm, name)), name
            if list(inspect.signature(function).parameters) == ["self"] and name != "create_future_map":
                answers[name] = getattr(algorithm, name)()
    return answers


def own_answers(algorithm: Any) -> list[str]:
    """The functions of SGLang's enum that an algorithm does not take from it."""
    found = []
    for name, function in vars(SpeculativeAlgorithm).items():
        if inspect.isfunction(function) and not name.startswith("_"):
            own = getattr(type(algorithm), name)
            if own is not function:
                found.append(name)
    return sorted(found)


def disaggregated(algorithm: Any) -> str:
    """What a decode server of two is given to draft from."""
    from sglang.srt.speculative import eagle_disaggregation

    with mock.patch.object(eagle_disaggregation, "build_eagle_disagg_draft_input", return_value="built"):
        return str(algorithm.build_disagg_draft_input(None, None, None, None))


def unhooked(algorithm: Any, worker_args: Any) -> str:
    """What is said where SGLang could not apply a hook."""
    kept = {target for target in HookRegistry._patched if not target.endswith("select_top_k_tokens")}
    try:
        with mock.patch.object(HookRegistry, "_patched", kept):
            algorithm.create_worker(worker_args)
    except RuntimeError as error:
        return str(error)
    return "nothing"


def loads() -> dict[str, int]:
    """How often each model's drafter is read while SGLang hands over several buckets of weights."""
    from prism_ae.sglang_prism import models

    found = {}
    for kind in models.EntryClass:
        model = kind.__new__(kind)
        torch.nn.Module.__init__(model)
        model.config = SimpleNamespace(prism_ae={"drafter": "drafter"})
        read: list[Any] = []

        def load(self: Any, folder: Any, read: list[Any] = read) -> None:
            read.append(folder)
            self.prism_ae_folder = str(folder)

        with mock.patch.object(kind, "load_drafter", load):
            for _ in range(3):
                model.load_weights(iter(()))
        found[kind.__name__] = len(read)
    return found


def shared_allocations() -> list[str]:
    """On which device a drafter makes the embedding and head that the target's replace."""
    from prism_ae.sglang_prism import models

    devices: list[str] = []

    class Recorded(torch.nn.Module):
        def __init__(self, *sizes: int, **options: Any) -> None:
            super().__init__()
            devices.append(torch.empty(0).device.type)

    described = {"modules": 2, "step_mapping": [0, 1], "capture": []}
    config = SimpleNamespace(vocab_size=9, hidden_size=4, prism_ae={"config": described})
    with (
        mock.patch.object(models, "VocabParallelEmbedding", Recorded),
        mock.patch.object(models, "ParallelLMHead", Recorded),
        mock.patch.object(models, "DraftModule", return_value=torch.nn.Identity()),
        mock.patch.object(models, "LogitsProcessor", return_value=torch.nn.Identity()),
        mock.patch.object(models, "get_pp_group", return_value=None),
    ):
        models.PrismDraftModel(config)
    return devices


def selection() -> list[list[int]]:
    """The branches that SGLang's own selection continues, and those that a loop's buffers were copied from."""
    torch.manual_seed(0)
    found = []
    for branch, steps in ((2, 4), (4, 6), (5, 3)):
        rows = 3
        slots = torch.arange(rows * branch * steps).view(rows, branch, steps)
        loop = drafting._Loop(slots, [])
        copied: list[torch.Tensor] = []
        with (
            mock.patch.object(drafting, "_running", loop),
            mock.patch.object(drafting, "inherit", lambda slots, parents, *_: copied.append(parents)),  # noqa: B023
        ):
            scores = None
            hidden = torch.zeros(rows, 1)
            for i in range(steps):
                width = 1 if i == 0 else branch
                probs = torch.rand(rows * width, branch)
                tokens = torch.randint(0, 9, (rows * width, branch))
                _, hidden, scores, _ = drafting.around_select(
                    spec_utils.select_top_k_tokens, i, probs, tokens, hidden, scores, branch
                )
                if 1 <= i < steps - 1:
                    # Each hidden state names the branch that it came from.
                    own = hidden.view(rows, branch) - torch.arange(rows)[:, None] * branch
                    found += [own.long().flatten().tolist(), copied[-1].flatten().tolist()]
                hidden = torch.arange(rows * branch, dtype=torch.float).view(-1, 1)
        assert len(copied) == steps - 2
    return found


def main() -> None:
    fields = {field.name for field in dataclasses.fields(ServerArgs)}
    found: dict[str, Any] = {
        "options": sorted(fields),
        "sampling": list(SamplingParams.__struct_fields__),
        "signatures": {target: signature(target) for target, _, _ in plugin.hooks()},
        "own": {target: signature(target) for target, _, _ in OWN},
        "selection": selection(),
    }
    load_plugins()
    found["patched"] = sorted(HookRegistry._patched)
    algorithms = {name: SpeculativeAlgorithm.from_string(name) for name in (PRISM, PRISM_CAPTURED)}
    found["algorithms"] = {name: questions_of(algorithm) for name, algorithm in algorithms.items()}
    found["eagle"] = {name: questions_of(SpeculativeAlgorithm[name]) for name in ("EAGLE", "EAGLE3")}
    worker_args = SimpleNamespace(disable_overlap_schedule=True)
    found["worker"] = [algorithm.create_worker(worker_args).__name__ for algorithm in algorithms.values()]
    found["own_answers"] = {name: own_answers(algorithm) for name, algorithm in algorithms.items()}
    found["disaggregated"] = [disaggregated(algorithm) for algorithm in algorithms.values()]
    found["loads"] = loads()
    found["shared"] = shared_allocations()
    found["unhooked"] = unhooked(algorithms[PRISM], worker_args)
    before = set(ModelRegistry.models)
    with contextlib.suppress(Exception):  # the hook comes before; the wrapped function gets nothing to work with
        pkgutil.resolve_name(LOOKS_UP_A_MODEL)(SimpleNamespace())
    found["models"] = sorted(set(ModelRegistry.models) - before)
    found["command"] = hasattr(Scheduler, control.CONFIGURE)
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
