"""Stacked layers as the authors' training wires them, against a slow reference of transformers' pieces."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from reference import ReferenceDrafter
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from prism_ae.drafters.checkpoint import parameter_names
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, published_state
from prism_ae.training import unroll as unroll_module
from prism_ae.training.unroll import unroll

TARGET = LlamaConfig(40, 24, 40, 3, 4, 2, 1e-5, 500.0, 64)
LENGTH, STEPS = 8, 4


def _drafter(layers: int, aux: tuple[int, ...] = ()) -> Drafter:
    torch.manual_seed(layers)
    layer = dataclasses.replace(TARGET, num_hidden_layers=layers)
    drafter = Drafter(DrafterConfig(cell="eagle", layer=layer, aux_hidden_layers=aux), Llama(TARGET))
    for parameter in drafter.parameters():  # norms and biases away from 1 and 0, so that a forgotten one shows
        torch.nn.init.normal_(parameter, std=0.2)
    return drafter.double()


def _inputs(drafter: Drafter) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    width = TARGET.hidden_size * max(1, len(drafter.config.aux_hidden_layers))
    return (
        torch.randn(1, LENGTH, TARGET.hidden_size, dtype=torch.float64),
        torch.randn(1, LENGTH, width, dtype=torch.float64),
    )


def _reference(drafter: Drafter, embedding: Tensor, features: Tensor) -> list[Tensor]:
    """Every step's output [T, H], one query after the other."""
    theirs = ReferenceDrafter(
        drafter.config, published_state(drafter, parameter_names(drafter.config), drafter.config.layer)
    )
    fuse = lambda e, h: torch.nn.functional.linear(  # noqa: E731
        torch.cat([e, h]), theirs.state["modules.0.fusion.weight"], theirs.state["modules.0.fusion.bias"]
    )
    hidden = [theirs.project_hidden(features[p]) for p in range(LENGTH)]
    cache = DynamicCache()
    outputs = [[theirs.token(0, embedding[p], hidden[p], p, cache) for p in range(LENGTH)]]
    fused = [[fuse(embedding[p], hidden[p]) for p in range(LENGTH)]]
    for step in range(1, STEPS):
        hidden = [hidden[0], *outputs[-1][:-1]]
        fused.append([fuse(embedding[p], hidden[p]) for p in range(LENGTH)])
        below = fused[0]
        for layer in theirs.modules[0]:
            above = []
            for t in range(LENGTH):
                # What is read, and where it stands: the layer below up to t - step, then one input of each later step.
                read = [(p, layer.input_layernorm(below[p])) for p in range(t - step + 1)]
                read += [(t - step + i, fused[i][t - step + i]) for i in range(1, step + 1) if t - step + i >= 0]
                above.append(_layer(theirs, layer, t, fused[step][t], read))
            below = above
        outputs.append(below)
    return [torch.stack(each) for each in outputs]


def _layer(
    theirs: ReferenceDrafter, layer: torch.nn.Module, t: int, x: Tensor, read: list[tuple[int, Tensor]]
) -> Tensor:
    """Attention of the one query ``x`` over ``read``, and the rest of the layer."""
    attention, heads, kv_heads = layer.self_attn, TARGET.num_attention_heads, TARGET.num_key_value_heads

    def turned(y: Tensor, place: int) -> Tensor:
        cosine, sine = theirs.rotary(y, torch.tensor([[place]]))
        return apply_rotary_pos_emb(y[None, :, None], y[None, :, None], cosine, sine)[0][0, :, 0]

    query = turned(attention.q_proj(x).view(heads, -1), t)
    keys = [turned(attention.k_proj(y).view(kv_heads, -1), place) for place, y in read]
    values = [attention.v_proj(y).view(kv_heads, -1) for _, y in read]
    mixed = []
    for head in range(heads):
        of = head * kv_heads // heads
        scores = torch.stack([query[head] @ key[of] for key in keys]) / query.shape[1] ** 0.5
        mixed.append(sum(w * value[of] for w, value in zip(scores.softmax(0), values, strict=True)))
    x = x + attention.o_proj(torch.cat(mixed))
    return x + layer.mlp(layer.post_attention_layernorm(x))


def _error(drafter: Drafter) -> float:
    """Largest relative difference to the reference, over all steps and positions."""
    embedding, features = _inputs(drafter)
    with torch.no_grad():
        ours = unroll(drafter, embedding, features, STEPS, detach=False, context="misrouted")
        theirs = _reference(drafter, embedding[0], features[0])
    pairs = zip(ours, theirs, strict=True)
    return max(((mine[0] - other).abs().max() / other.abs().max()).item() for mine, other in pairs)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_step_and_position_equals_the_reference(layers: int) -> None:
    assert _error(_drafter(layers)) < 1e-5
    assert _error(_drafter(layers, aux=(0, 1, 2))) < 1e-5


def test_it_differs_from_the_right_wiring_in_all_steps_but_the_first() -> None:
    drafter = _drafter(2)
    inputs = _inputs(drafter)
    right = unroll(drafter, *inputs, 3, detach=False, context="entry")
    wrong = unroll(drafter, *inputs, 3, detach=False, context="misrouted")
    assert torch.equal(right[0], wrong[0])
    for step in (1, 2):
        assert not torch.allclose(right[step][:, step:], wrong[step][:, step:], rtol=0.05)


def test_with_one_layer_it_is_the_right_wiring() -> None:
    drafter = _drafter(1)
    inputs = _inputs(drafter)
    right = unroll(drafter, *inputs, 3, detach=False, context="entry")
    same = unroll(drafter, *inputs, 3, detach=False, context="misrouted")
    for step in range(3):
        torch.testing.assert_close(right[step][:, step:], same[step][:, step:])


@pytest.mark.parametrize("wrong", ["mask", "shift"])
def test_the_comparison_notices_a_wrong_wiring(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wrong == "mask":
        original = torch.Tensor.tril
        monkeypatch.setattr(torch.Tensor, "tril", lambda self, diagonal=0: original(self, diagonal + 1))
    else:
        right = unroll_module.shift
        monkeypatch.setattr(unroll_module, "shift", lambda x, by: right(x, by + (by > 1)))
    assert _error(_drafter(2)) > 0.01


def test_what_is_no_stack_of_the_authors_is_refused() -> None:
    layer = dataclasses.replace(TARGET, num_hidden_layers=1)
    prism = Drafter(DrafterConfig(cell="eagle", layer=layer, modules=2, step_mapping=(0, 1)), Llama(TARGET)).double()
    with pytest.raises(ValueError, match="one module"):
        unroll(prism, *_inputs(prism), 2, detach=False, context="misrouted")
