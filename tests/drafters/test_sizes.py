"""How large drafters are and what they read: against the modules' own parameters, and against the paper's sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from published import DRAFTERS, TARGET, make_drafter, make_target

from prism_ae.cells import TreeShape
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter, EagleModule
from prism_ae.drafters.sizes import Decoding, draft_bytes, forward_pass, parameters, sizes, step_bytes
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Attend, Llama, causal

LLAMA_2 = LlamaConfig(32000, 4096, 11008, 32, 32, 32, 1e-5, 1e4, 4096)
LLAMA_3 = LlamaConfig(128256, 4096, 14336, 32, 32, 8, 1e-5, 5e5, 8192)
STATES = (3, 17, 30)


def published(target: LlamaConfig) -> dict[str, DrafterConfig]:
    """The paper's drafters."""

    def cell(layers: int = 1, **changes: object) -> DrafterConfig:
        return DrafterConfig("eagle", dataclasses.replace(target, num_hidden_layers=layers), **changes)

    eagle3 = DrafterConfig(
        "eagle3",
        dataclasses.replace(target, num_hidden_layers=1),
        aux_hidden_layers=STATES,
        draft_vocab_size=32000,
    )
    return {
        "eagle2": cell(),
        "hass": cell(),
        "hass2": cell(2),
        "hass3": cell(3),
        "prism": cell(modules=2, step_mapping=(0, 1)),
        "prism_star": cell(modules=2, step_mapping=(0, 1), aux_hidden_layers=STATES),
        "prism3": cell(modules=3, step_mapping=(0, 1, 2)),
        "eagle3": eagle3,
    }


@pytest.mark.parametrize(
    ("target", "name", "total", "active"),
    [
        # Counted from the authors' published configs, apart from this package, without embedding and shared head.
        (LLAMA_2, "eagle2", 235_937_792, 235_937_792),
        (LLAMA_2, "hass", 235_937_792, 235_937_792),
        (LLAMA_2, "prism", 471_875_584, 235_937_792),
        (LLAMA_2, "prism_star", 522_211_328, 235_937_792 + 50_335_744),
        (LLAMA_2, "hass2", 438_321_152, 438_321_152),
        (LLAMA_2, "hass3", 640_704_512, 640_704_512),
        (LLAMA_3, "eagle2", 251_666_432, 251_666_432),
        (LLAMA_3, "prism", 503_332_864, 251_666_432),
        (LLAMA_3, "prism_star", 553_668_608, 251_666_432 + 50_335_744),
        (LLAMA_3, "hass2", 469_778_432, 469_778_432),
        (LLAMA_3, "hass3", 687_890_432, 687_890_432),
        (LLAMA_3, "eagle3", 424_689_664, 424_689_664),
        (LLAMA_3, "prism3", 3 * 251_666_432, 251_666_432),
    ],
)
def test_the_papers_drafters_have_their_published_sizes(
    target: LlamaConfig, name: str, total: int, active: int
) -> None:
    drafter = published(target)[name]
    assert parameters(drafter) == total
    assert forward_pass(drafter).own == active


def test_the_papers_targets_have_their_published_sizes() -> None:
    assert parameters(LLAMA_2) == 6_738_415_616
    assert parameters(LLAMA_3) == 8_030_261_248


@pytest.mark.parametrize("tied", [False, True])
def test_a_target_has_the_parameters_of_its_module(tied: bool) -> None:
    config = dataclasses.replace(TARGET, tie_word_embeddings=tied)
    model = Llama(config)
    assert parameters(config) == sum(each.numel() for each in model.parameters())
    read = forward_pass(config)
    # Everything but the table; where the head is the table, all of it is read as the head.
    table = 0 if tied else model.embedding.weight.numel()
    assert (read.own, read.row) == (parameters(config) - table, config.hidden_size)


@pytest.mark.parametrize("kind", DRAFTERS)
def test_a_drafter_has_the_parameters_of_its_module_and_a_step_reads_those_it_runs(kind: str) -> None:
    """A parameter that a step runs is one that its output's gradient reaches."""
    drafter = make_drafter(kind, make_target())
    mine = list(drafter.parameters())
    assert parameters(drafter.config) == sum(each.numel() for each in mine)
    for step in range(4):
        for parameter in mine:
            parameter.requires_grad_(True).grad = None
        run_step(drafter, step).sum().backward()
        reached = sum(each.numel() for each in mine if each.grad is not None)
        assert forward_pass(drafter.config, step).own == reached
        assert forward_pass(drafter.config, step).shared == (
            0 if kind == "eagle3" else TARGET.vocab_size * TARGET.hidden_size
        )


def run_step(drafter: Drafter, step: int) -> torch.Tensor:
    size, states = TARGET.hidden_size, len(drafter.config.aux_hidden_layers) or 1
    hidden = torch.randn(1, 3, size)
    if step == 0:
        hidden = drafter.project_hidden(torch.randn(1, 3, states * size))
    rotation = drafter.rotary(torch.arange(3)[None])
    return drafter.logits(drafter.step(step, torch.randn(1, 3, size), hidden, rotation, causal))


@pytest.mark.parametrize("kind", DRAFTERS)
def test_keys_and_values_are_those_that_a_layer_hands_to_its_cache(kind: str) -> None:
    target = make_target()
    drafter = make_drafter(kind, target)
    handed = 0

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        nonlocal handed
        handed += key[:, :, 0].numel() + value[:, :, 0].numel()
        return causal(layer, query, key, value)

    keep: Attend = attend
    hidden, rotation = torch.randn(1, 3, TARGET.hidden_size), drafter.rotary(torch.arange(3)[None])
    drafter.step(1, hidden, hidden, rotation, keep)
    assert forward_pass(drafter.config, 1).key_values == handed
    handed = 0
    target(torch.zeros(1, 3, dtype=torch.long), torch.arange(3)[None], keep)
    assert forward_pass(TARGET).key_values == handed


def test_bytes_of_a_step_are_its_weights_once_and_the_context_of_every_sequence() -> None:
    """LLaMA-2-7B in half precision: 13.2 GB of weights, half a MB of keys and values per token of context."""
    read = forward_pass(LLAMA_2)
    weights = 2 * (6_738_415_616 - 131_072_000)
    assert step_bytes(read, 1, Decoding(1, 0, 2)) == weights + 2 * 4096
    assert step_bytes(read, 1, Decoding(1, 100, 2)) - step_bytes(read, 1, Decoding(1, 0, 2)) == 100 * 524_288
    assert step_bytes(read, 16, Decoding(4, 100, 2)) == weights + 4 * (16 * 2 * 4096 + 100 * 524_288)


def test_a_round_of_prism_reads_what_a_round_of_hass_does() -> None:
    """The paper's point, by arithmetic: twice the parameters, the same bytes; twice the layers are more bytes."""
    tree, how = TreeShape(6, 4, 16), Decoding(1, 500, 2)
    drafters = published(LLAMA_3)
    found = {name: sizes(LLAMA_3, drafters[name], tree, how) for name in drafters}
    assert found["prism"]["round_bytes"] == found["prism3"]["round_bytes"] == found["hass"]["round_bytes"]
    assert found["prism"]["drafter_parameters"] == 2 * found["hass"]["drafter_parameters"]
    more = found["hass2"]["round_bytes"] - found["hass"]["round_bytes"]
    assert more == 6 * 2 * (218_107_904 + 4096 + 500 * 2 * 1024)
    # The projection of PRISM*'s hidden states is read once a round, EAGLE-3's head is its own and smaller.
    assert found["prism_star"]["round_bytes"] - found["prism"]["round_bytes"] == 2 * 50_335_744
    assert found["eagle3"]["drafter_shared_parameters"] == 4096
    assert found["hass"]["drafter_shared_parameters"] == 128_256 * 4096 + 4096


def test_a_round_is_its_draft_steps_and_the_verification() -> None:
    tree, how = TreeShape(3, 2, 6), Decoding(2, 10, 4)
    drafter = make_drafter("prism", make_target()).config
    found = sizes(TARGET, drafter, tree, how)
    module = sum(each.numel() for each in EagleModule(drafter.layer).parameters())
    head, size = TARGET.vocab_size * TARGET.hidden_size, TARGET.hidden_size
    context = 10 * 2 * drafter.layer.key_value_size
    steps = [4 * (module + head + 2 * (width * size + context)) for width in (1, 2, 2)]
    assert draft_bytes(drafter, tree, how) == sum(steps) == 3 * found["draft_step_bytes"]
    assert found["round_bytes"] == sum(steps) + step_bytes(forward_pass(TARGET), 6, how)
    plain = sizes(TARGET, None, None, how)
    assert plain == {key: value for key, value in found.items() if key in plain}
    assert set(found) - set(plain) == {
        "drafter_parameters", "drafter_active_parameters", "drafter_shared_parameters", "draft_step_bytes",
        "round_bytes",
    }  # fmt: skip


def test_a_model_that_drafts_reads_itself_and_nothing_of_the_target() -> None:
    small = dataclasses.replace(TARGET, num_hidden_layers=1)
    model = Llama(small)
    found = sizes(TARGET, small, TreeShape(2, 1, 3), Decoding(1, 0, 2))
    total = sum(each.numel() for each in model.parameters())
    assert found["drafter_parameters"] == total
    assert found["drafter_active_parameters"] == total - (small.vocab_size - 1) * small.hidden_size
    assert found["drafter_shared_parameters"] == 0
    assert found["draft_step_bytes"] == 2 * found["drafter_active_parameters"]
