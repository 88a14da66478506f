"""The aligned unroll gives what a sequential decoder with a key-value cache gives, and so do the drafters' forwards."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from reference import ReferenceDrafter
from transformers import DynamicCache

from prism_ae.drafters.checkpoint import parameter_names
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, causal, published_state
from prism_ae.training import unroll as unroll_module
from prism_ae.training.unroll import unroll

TARGET = LlamaConfig(40, 24, 40, 3, 4, 2, 1e-5, 500.0, 64)
LENGTH, STEPS = 9, 5


def _drafter(config: DrafterConfig, seed: int = 0) -> Drafter:
    torch.manual_seed(seed)
    drafter = Drafter(config, Llama(TARGET))
    for parameter in drafter.parameters():  # norms and biases away from 1 and 0, so that a forgotten one shows
        torch.nn.init.normal_(parameter, std=0.2)
    return drafter.double()


def _config(layers: int = 1, kv_heads: int = 2, **rest: object) -> DrafterConfig:
    layer = dataclasses.replace(TARGET, num_hidden_layers=layers, num_key_value_heads=kv_heads)
    return DrafterConfig(**({"cell": "eagle", "layer": layer} | rest))  # type: ignore[arg-type]


KINDS = {
    "hass": _config(),
    "hass multi-head": _config(kv_heads=4),
    "hass2": _config(layers=2),
    "hass3": _config(layers=3),
    "prism": _config(modules=2, step_mapping=(0, 1)),
    "prism_star": _config(modules=2, step_mapping=(0, 1), aux_hidden_layers=(1, 2, 3)),
    "prism3": _config(modules=3, step_mapping=(0, 1, 2), aux_hidden_layers=(0, 1, 2), kv_heads=4),
    "eagle3": _config(cell="eagle3", aux_hidden_layers=(0, 1, 2), draft_vocab_size=20),
}


def _inputs(drafter: Drafter) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    width = TARGET.hidden_size * max(1, len(drafter.config.aux_hidden_layers))
    shapes = (2, LENGTH, TARGET.hidden_size), (2, LENGTH, width)
    return torch.randn(shapes[0], dtype=torch.float64), torch.randn(shapes[1], dtype=torch.float64)


def _largest_error(drafter: Drafter, context: str, detach: bool = False) -> float:
    """Between `unroll` and the reference, over every start, step and row."""
    state = published_state(drafter, parameter_names(drafter.config), drafter.config.layer)
    reference = ReferenceDrafter(drafter.config, state)
    embedding, features = _inputs(drafter)
    with torch.no_grad():
        outputs = unroll(drafter, embedding, features, STEPS, detach=detach, context=context)  # type: ignore[arg-type]
    worst = 0.0
    for row in range(2):
        for start in range(LENGTH):
            expected = reference.round(embedding[row], features[row], start, STEPS, context == "own")
            for step, output in enumerate(expected):
                error = (outputs[step][row, start + step] - output).abs().max() / output.abs().max()
                worst = max(worst, error.item())
    return worst


@pytest.mark.parametrize("kind", KINDS)
def test_every_start_and_step_equals_a_sequential_decoder(kind: str) -> None:
    assert _largest_error(_drafter(KINDS[kind]), "entry") < 1e-5


@pytest.mark.parametrize("kind", ["prism", "prism_star", "prism3", "hass"])
def test_own_context_equals_each_module_over_its_own_keys(kind: str) -> None:
    assert _largest_error(_drafter(KINDS[kind]), "own") < 1e-5


def test_the_two_contexts_differ_for_prism() -> None:
    drafter = _drafter(KINDS["prism"])
    embedding, features = _inputs(drafter)
    entry = unroll(drafter, embedding, features, 3, detach=False, context="entry")
    own = unroll(drafter, embedding, features, 3, detach=False, context="own")
    assert torch.equal(entry[0], own[0])
    assert not torch.allclose(entry[1], own[1], rtol=0.05)


def test_own_context_of_stacked_modules_is_refused() -> None:
    drafter = _drafter(_config(layers=2, modules=2, step_mapping=(0, 1)))
    with pytest.raises(ValueError, match="one layer"):
        unroll(drafter, *_inputs(drafter), 2, detach=False, context="own")


@pytest.mark.parametrize("wrong", ["mask", "shift", "module"])
def test_the_comparison_notices_a_wrong_unroll(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations: a context that reaches one position too far, branch keys one step off, the wrong module."""
    if wrong == "mask":
        original = torch.Tensor.tril
        monkeypatch.setattr(torch.Tensor, "tril", lambda self, diagonal=0: original(self, diagonal + 1))
    elif wrong == "shift":
        right = unroll_module.shift
        monkeypatch.setattr(unroll_module, "shift", lambda x, by: right(x, by + (by > 1)))
    else:
        monkeypatch.setattr(DrafterConfig, "module_of", lambda self, step: 1 if step == 1 else 0)
        drafter = _drafter(KINDS["prism"])
        state = published_state(drafter, parameter_names(drafter.config), drafter.config.layer)
        embedding, features = _inputs(drafter)
        outputs = unroll(drafter, embedding, features, 3, detach=False)
        monkeypatch.undo()
        expected = ReferenceDrafter(drafter.config, state).round(embedding[0], features[0], 3, 3, False)
        assert not torch.allclose(outputs[2][0, 5], expected[2], rtol=0.05)
        return
    assert _largest_error(_drafter(KINDS["hass"]), "entry") > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_equals_transformers_layers(kind: str) -> None:
    """Each module over a whole causal sequence, and the head."""
    drafter = _drafter(KINDS[kind])
    state = published_state(drafter, parameter_names(drafter.config), drafter.config.layer)
    reference = ReferenceDrafter(drafter.config, state)
    embedding, features = _inputs(drafter)
    with torch.no_grad():
        hidden = drafter.project_hidden(features)
        rotation = drafter.rotary(torch.arange(LENGTH)[None])
        for step in range(drafter.config.modules):
            output = drafter.step(step, embedding, hidden, rotation, causal)
            cache = DynamicCache()
            for p in range(LENGTH):
                projected = reference.project_hidden(features[0, p])
                expected = reference.token(drafter.config.module_of(step), embedding[0, p], projected, p, cache)
                torch.testing.assert_close(output[0, p], expected, rtol=1e-5, atol=1e-5)


def test_detach_cuts_the_graph_between_steps_and_nothing_else() -> None:
    """With it, the loss of step 1 does not reach step 0's parameters through the hidden input."""
    drafter = _drafter(KINDS["prism"])
    embedding, features = _inputs(drafter)

    def gradient(detach: bool) -> torch.Tensor:
        drafter.zero_grad()
        unroll(drafter, embedding, features, 2, detach=detach)[1].square().sum().backward()
        down = drafter.modules_[0].layers[0].mlp.down.weight
        return torch.zeros_like(down) if down.grad is None else down.grad.clone()

    # Module 0's MLP reaches step 1 only through its output; its keys and values do so without it.
    assert gradient(True).abs().max() == 0
    assert gradient(False).abs().max() > 0


def test_positions_before_a_step_never_reach_later_ones() -> None:
    """What is meaningless (t < j) must not leak into what counts."""
    drafter = _drafter(KINDS["prism"])
    embedding, features = _inputs(drafter)
    outputs = unroll(drafter, embedding, features, 4, detach=False)
    changed = embedding.clone()
    changed[:, -1] += 1.0
    again = unroll(drafter, changed, features, 4, detach=False)
    for step in range(4):
        torch.testing.assert_close(outputs[step][:, : LENGTH - 1], again[step][:, : LENGTH - 1])
