"""What the plugin needs of the pinned SGLang is there: options, parameters, wrapped functions, algorithms, models."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from stand_in_process import needs_sglang, run

from prism_ae.cells import TreeShape
from prism_ae.engines.sglang.options import EngineSetup, engine_options
from prism_ae.sglang_prism import control, plugin, registration, streams
from prism_ae.sglang_prism.algorithm import OVERRIDDEN, PRISM, PRISM_CAPTURED
from prism_ae.sglang_prism.host import EngineHost
from prism_ae.sglang_prism.messages import Serve
from prism_ae.suites.compat import GRAPHS_BATCH_1

_AMX = "sglang.srt.layers.attention.intel_amx_backend.IntelAMXAttnBackend"
_ATTENTION = ["self", "q", "k", "v", "layer", "forward_batch", "save_kv_cache", "sinks"]
_GRAMMAR = "sglang.srt.constrained.xgrammar_backend"
_WORKER = "sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker"
SIGNATURES = {
    "sglang.srt.arg_groups.speculative_hook.handle_speculative_decoding": ["server_args"],
    "sglang.srt.distributed.parallel_state.init_distributed_environment": [
        "world_size",
        "rank",
        "distributed_init_method",
        "local_rank",
        "backend",
        "timeout",
        "moe_a2a_backend",
        "recovered_rank",
        "max_world_size",
    ],
    "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._process_logprobs_tokens": [
        "self",
        "logprobs",
        "use_token_index",
    ],
    "sglang.srt.managers.schedule_batch.Req.update_finish_state": ["self", "new_accepted_len"],
    "sglang.srt.managers.schedule_batch.Req.update_spec_correct_drafts_histogram": ["self", "num_correct_drafts"],
    "sglang.srt.managers.scheduler.Scheduler.get_internal_state": ["self", "recv_req"],
    "sglang.srt.managers.scheduler.Scheduler.is_disable_overlap_for_batch": ["self", "batch", "last_batch"],
    "sglang.srt.mem_cache.allocation_sizing.get_req_to_token_extra_context_len": ["server_args"],
    "sglang.srt.mem_cache.radix_cache.RadixCache.__init__": ["self", "params"],
    "sglang.srt.model_loader.utils.get_model_architecture": ["model_config"],
    "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.copy_for_forward": ["self"],
    "sglang.srt.server_args.ServerArgs._handle_missing_default_values": ["self"],
    "sglang.srt.session.session_controller.Session.create_req": [
        "self",
        "req",
        "tokenizer",
        "vocab_size",
        "eos_token_ids",
    ],
    "sglang.srt.speculative.eagle_utils.eagle_sample": ["verify_input", "batch", "logits_output", "grammar_mask"],
    "sglang.srt.speculative.spec_utils.select_top_k_tokens": [
        "i",
        "topk_p",
        "topk_index",
        "hidden_states",
        "scores",
        "topk",
    ],
    f"{_WORKER}.draft_forward": ["self", "forward_batch"],
    f"{_WORKER}.init_attention_backend": ["self"],
    f"{_WORKER}.init_lm_head": ["self"],
    f"{_GRAMMAR}._allocate_token_bitmask": ["vocab_size", "batch_size"],
    f"{_GRAMMAR}.XGrammarGrammar.apply_vocab_mask": ["self", "logits", "vocab_mask"],
    f"{_AMX}.forward_decode": _ATTENTION,
    f"{_AMX}.forward_extend": _ATTENTION,
    "sglang.srt.layers.layernorm.RMSNorm.forward_native": ["self", "x", "residual", "post_residual_addition"],
    "sglang.srt.layers.rotary_embedding.base.RotaryEmbedding.forward_native": [
        "self",
        "positions",
        "query",
        "key",
        "offsets",
        "fused_set_kv_buffer_arg",
    ],
}
"""Parameters of the functions that are wrapped, in the version that the hooks were written for."""

_EAGLE = "sglang.srt.speculative.eagle_worker_v2.EAGLEWorkerV2"
OWN = {
    "sglang.srt.entrypoints.engine._set_envs_and_config": ["server_args"],
    "sglang.srt.entrypoints.engine.Engine._launch_detokenizer_subprocesses": [
        "server_args",
        "port_args",
        "run_detokenizer_process_func",
    ],
    "sglang.srt.managers.scheduler.dispatch_event_loop": ["scheduler"],
    "sglang.srt.managers.scheduler.Scheduler.process_batch_result": ["self", "batch", "result"],
    "sglang.srt.managers.tp_worker.TpModelWorker.forward_batch_generation": [
        "self",
        "batch",
        "forward_batch",
        "pp_proxy_tensors",
        "is_verify",
        "skip_attn_backend_init",
        "capture_hidden_mode",
    ],
    "sglang.srt.model_executor.model_runner.ModelRunner.sample": ["self", "logits_output", "forward_batch"],
    f"{_EAGLE}.forward_batch_generation": ["self", "batch", "on_publish", "grammar_barrier"],
    f"{_EAGLE}.verify": ["self", "batch", "grammar_barrier"],
}
"""Of those that are wrapped only in engines that this project starts."""


def differences(recorded: Mapping[str, Collection[str]], found: Mapping[str, Collection[str]]) -> list[str]:
    """Functions whose parameters are not those that were recorded."""
    return sorted(name for name in {*recorded, *found} if recorded.get(name) != found.get(name))


def unknown(names: Collection[str], known: Collection[str]) -> list[str]:
    return sorted(set(names) - set(known))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(run("sglang_plugin_oracle.py").splitlines()[-1])


def options() -> set[str]:
    """Every option that an engine can be started with."""
    setup = EngineSetup(
        target=Path("target"),
        drafter=Path("drafter"),
        architecture="{}",
        tree=TreeShape(6, 10, 60),
        batch=8,
        max_seq_len=512,
        dtype="float32",
        seed=1,
        drafting="exact",
        device="cpu",
        server_flags=(),
    )
    setups = [
        dataclasses.replace(setup, device=device, tree=tree, server_flags=flags)
        for device in ("cpu", "cuda:0")
        for tree in (setup.tree, None)
        for flags in ((), (GRAPHS_BATCH_1,))
    ]
    return {name for each in setups for name in engine_options(each)}


def sampling_parameters() -> dict[str, Any]:
    """What the host asks SGLang for, with a request that an engine of one answer gets."""
    sent: list[dict[str, Any]] = []

    async def generate(input_ids: list[int], sampling_params: dict[str, Any], stream: bool) -> Any:
        sent.append(sampling_params)

        async def chunks() -> AsyncIterator[dict[str, Any]]:
            yield {"output_ids": [7], "meta_info": {"finish_reason": {"type": "length"}}}

        return chunks()

    host = EngineHost.__new__(EngineHost)
    host._engine = SimpleNamespace(async_generate=generate)
    conversation: Any = SimpleNamespace(prompt=lambda users, answers: [1, 2], end_ids=frozenset({9, 3}))
    asked = Serve(Path("target"), SimpleNamespace(), "", (("a",),), 0.5, 16, 12, 1, True)  # type: ignore[arg-type]
    asyncio.run(host._answer(0, ("a",), conversation, asked))
    return sent[0]


@needs_sglang
def test_options_and_sampling_parameters_are_known(found: dict[str, Any]) -> None:
    names = options()
    assert {"model_path", "cuda_graph_max_bs_decode", "speculative_num_steps"} <= names
    assert unknown(names, found["options"]) == []
    assert unknown({*names, "cuda_graph_max_bs"}, found["options"]) == ["cuda_graph_max_bs"]
    parameters = sampling_parameters()
    assert parameters["max_new_tokens"] == 10  # max_seq_len less the prompt, below the limit
    assert parameters["stop_token_ids"] == [3, 9]
    assert unknown(parameters, found["sampling"]) == []
    assert unknown([*parameters, "stop_ids"], found["sampling"]) == ["stop_ids"]


@needs_sglang
def test_wrapped_functions_are_those_that_were_recorded(found: dict[str, Any]) -> None:
    assert differences(SIGNATURES, found["signatures"]) == []
    assert differences(OWN, found["own"]) == []
    one = f"{_WORKER}.draft_forward"
    assert differences(SIGNATURES, found["signatures"] | {one: ["self", "batch"]}) == [one]
    assert differences(SIGNATURES, {name: found["signatures"][name] for name in SIGNATURES if name != one}) == [one]
    assert differences(SIGNATURES, found["signatures"] | {"sglang.other": []}) == ["sglang.other"]


def test_every_hook_takes_what_the_wrapped_function_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as SGLang's registry does, with as many arguments as were recorded."""
    import inspect

    monkeypatch.setenv(plugin.CPU_VARIABLE, "0")
    monkeypatch.setenv(control.NONCE, "f00")
    first = {"before": 0, "after": 1, "around": 1}  # the result, or the function
    for target, hook, kind in plugin.hooks():
        inspect.signature(hook).bind(*[None] * (first[kind] + len((SIGNATURES | OWN)[target])))


@needs_sglang
def test_loading_the_plugins_applies_every_hook(found: dict[str, Any]) -> None:
    assert found["patched"] == sorted(SIGNATURES)


@needs_sglang
def test_the_algorithms_answer_as_eagle_does(found: dict[str, Any]) -> None:
    assert found["algorithms"][PRISM] == found["eagle"]["EAGLE"]
    assert found["algorithms"][PRISM_CAPTURED] == found["eagle"]["EAGLE3"]
    assert found["algorithms"][PRISM]["is_eagle"]
    assert not found["algorithms"][PRISM]["is_eagle3"]
    assert found["worker"] == ["EAGLEWorkerV2"] * 2


@needs_sglang
def test_every_other_question_is_answered_by_sglangs_own_functions(found: dict[str, Any]) -> None:
    """Also one that takes arguments: the registry's base class answers some as for an algorithm without drafts."""
    for own in found["own_answers"].values():
        assert set(own) == OVERRIDDEN
    assert found["disaggregated"] == ["built", "built"]


@needs_sglang
def test_a_worker_without_all_hooks_is_refused(found: dict[str, Any]) -> None:
    assert "select_top_k_tokens" in found["unhooked"]
    assert "could not be made" in found["unhooked"]


@needs_sglang
def test_new_weights_of_the_target_leave_the_drafter_alone(found: dict[str, Any]) -> None:
    """SGLang hands them over in buckets, dozens of them, and calls the drafter's loading for each."""
    assert found["loads"] == {"PrismDraftModel": 1, "PrismEagle3DraftModel": 1}


@needs_sglang
def test_no_memory_is_taken_for_what_the_target_shares(found: dict[str, Any]) -> None:
    """SGLang sizes its key-value cache while a drafter's own embedding and head would still lie there."""
    assert found["shared"] == ["meta", "meta"]


def test_a_quantised_drafter_is_not_replaced() -> None:
    model = SimpleNamespace(quant_config=object(), load_drafter=None)
    with pytest.raises(RuntimeError, match="quantised"):
        control._load(SimpleNamespace(draft_runner=SimpleNamespace(model=model)), Path("drafter"))


@needs_sglang
def test_the_models_are_registered_when_sglang_looks_one_up(found: dict[str, Any]) -> None:
    assert found["models"] == ["PrismDraftModel", "PrismEagle3DraftModel"]


@needs_sglang
def test_parents_are_those_of_sglangs_own_selection(found: dict[str, Any]) -> None:
    pairs = list(zip(found["selection"][::2], found["selection"][1::2], strict=True))
    assert len(pairs) == 2 + 4 + 1
    assert all(theirs == ours for theirs, ours in pairs)
    assert any(theirs != sorted(theirs) for theirs, _ in pairs)


@needs_sglang
def test_a_users_own_server_has_no_command(found: dict[str, Any]) -> None:
    assert not found["command"]


def test_an_engine_with_a_nonce_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("sglang.srt.managers.scheduler")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for nonce in (None, "", "f00"):
        module.Scheduler = type("Scheduler", (), {})
        monkeypatch.delenv(control.NONCE, raising=False)
        if nonce is not None:
            monkeypatch.setenv(control.NONCE, nonce)
        control.install()
        assert hasattr(module.Scheduler, control.CONFIGURE) == bool(nonce)


def test_engines_of_ours_and_servers_with_prism_describe_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "state", lambda scheduler: {"tree": "4,4,16"})
    for nonce, algorithm, described in (
        (None, "EAGLE", False),
        (None, "NONE", False),
        (None, PRISM, True),
        (None, PRISM_CAPTURED, True),
        ("f00", "NONE", True),
    ):
        monkeypatch.delenv(control.NONCE, raising=False)
        if nonce:
            monkeypatch.setenv(control.NONCE, nonce)
        result = SimpleNamespace(internal_state={})
        control.add_state(result, SimpleNamespace(spec_algorithm=SimpleNamespace(name=algorithm)))
        assert result.internal_state == ({control.KEY: {"tree": "4,4,16"}} if described else {})


def test_another_version_is_refused_where_prism_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin raises SGLang only logs, and goes on to a message that leads nobody here."""
    registered: list[Any] = []
    monkeypatch.setattr(plugin, "_register_hook", lambda *hook: registered.append(hook))
    monkeypatch.setattr(plugin.importlib.metadata, "version", lambda name: "0.5.23")
    plugin.register()
    ((target, hook, kind),) = registered
    assert target in SIGNATURES
    assert kind == "before"
    with pytest.raises(ValueError, match=r"made for SGLang 0\.5\.17, and this is 0\.5\.23"):
        hook(SimpleNamespace(speculative_algorithm="Prism"))
    for other in ("EAGLE", None):
        hook(SimpleNamespace(speculative_algorithm=other))


def test_only_prism_is_sampled_by_us_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.CPU_VARIABLE, raising=False)
    monkeypatch.setattr("prism_ae.sglang_prism.sampling.HOOKS", [("x.eagle_sample", lambda *_: "ours", "around")])
    (hook,) = [hook for target, hook, _ in plugin.hooks() if target == "x.eagle_sample"]
    for algorithm, sampled in (
        (PRISM, "ours"),
        (PRISM_CAPTURED, "ours"),
        ("EAGLE", "theirs"),
        ("STANDALONE", "theirs"),
    ):
        batch = SimpleNamespace(spec_algorithm=SimpleNamespace(name=algorithm))
        assert hook(lambda *_: "theirs", None, batch, None) == sampled


def test_every_token_of_a_chunk_has_its_own_alternatives() -> None:
    """Where there are as many as tokens, and PRISM drafts."""
    for algorithm, alternatives, given, index in (
        (PRISM, [{}, {}], False, True),
        (PRISM, [{}], False, False),
        (PRISM, None, False, False),
        (PRISM, [{}, {}], True, True),
        ("EAGLE", [{}, {}], False, False),
    ):
        arguments = SimpleNamespace(speculative_algorithm=algorithm)
        serving = SimpleNamespace(tokenizer_manager=SimpleNamespace(server_args=arguments))
        logprobs = SimpleNamespace(tokens=["a", "b"], top_logprobs=alternatives)
        assert streams.each_its_own(serving, logprobs, given) == ((serving, logprobs), {"use_token_index": index})


def test_a_server_without_prism_is_left_alone() -> None:
    arguments = SimpleNamespace(speculative_algorithm="EAGLE", speculative_draft_model_path="d", model_path="m")
    before = vars(arguments).copy()
    registration.describe_drafter(arguments)  # type: ignore[arg-type]
    arguments.speculative_algorithm = before["speculative_algorithm"] = None
    registration.describe_drafter(arguments)  # type: ignore[arg-type]
    assert vars(arguments) == before
