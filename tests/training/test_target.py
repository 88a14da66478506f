"""Targets: the forward is transformers' Llama, folders load there, the optimiser does what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from prism_ae.mini import corpus
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.prompts.conversation import open_conversation
from prism_ae.prompts.templates import render_turn
from prism_ae.recipes.file import TargetTraining
from prism_ae.suites.load import load_suite
from prism_ae.training.examples import Example, collate, encode, order
from prism_ae.training.muon import Muon, orthogonalize
from prism_ae.training.target import answer_quality, new_target, schedule, train_target, weighted_loss
from prism_ae.training.tokenizer import save_tokenizer, special_tokens, train_tokenizer

SUITE = load_suite("mini")
TRAINING = TargetTraining(8, 1, 4, 1e-2, 1e-2, 2, 0.5, 0.1, 0.5, 1.0)


def _config(kv_heads: int, vocabulary: int = 40) -> LlamaConfig:
    return LlamaConfig(vocabulary, 32, 48, 3, 4, kv_heads, 1e-5, 500.0, 64)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_forward_and_hidden_states_equal_transformers(kv_heads: int, tmp_path: Path) -> None:
    target = new_target(_config(kv_heads), 0.5, 3)
    for parameter in target.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    save_target(tmp_path, target)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = torch.randint(0, 40, (3, 20))
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True)
        hidden, captured = target(ids, torch.arange(20)[None], aux_hidden_layers=(0, 1, 2))
        torch.testing.assert_close(target.head(hidden), expected.logits, rtol=1e-4, atol=1e-4)
    assert captured is not None
    torch.testing.assert_close(captured, torch.cat(expected.hidden_states[:3], dim=-1), rtol=1e-4, atol=1e-4)
    loaded = load_target(tmp_path, torch.float32, torch.device("cpu"))
    assert torch.equal(loaded(ids, torch.arange(20)[None])[0], hidden)


@pytest.mark.parametrize("name", ["mini-llama-2", "mini-llama-3"])
def test_training_ids_are_evaluation_ids(name: str, tmp_path: Path) -> None:
    """Token for token: a prompt tokenized as evaluation does it, with our tokenizer and with transformers'."""
    template = SUITE.templates[SUITE.targets[name].template]
    data = corpus.conversations(60, 4)
    made = train_tokenizer(data, template, SUITE.system_prompt, 400, single_digits=name == "mini-llama-2")
    save_tokenizer(tmp_path, made, template, 512)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": made.get_vocab_size()}))
    talk, theirs = open_conversation(tmp_path, template, SUITE.system_prompt), AutoTokenizer.from_pretrained(tmp_path)
    tokenizer, encoded = talk.tokenizer, encode(data, talk, 512).turns
    two_turns = 0
    for conversation, examples in zip(data, encoded, strict=True):
        assert len(examples) == len(conversation)
        for turn, example in enumerate(examples):
            users = [user for user, _ in conversation[: turn + 1]]
            answers = [answer for _, answer in conversation[:turn]]
            text = render_turn(template, SUITE.system_prompt, users, answers)
            prompt = list(example.ids[: example.start])
            assert prompt == tokenizer.encode(text, add_special_tokens=False).ids
            assert prompt == theirs(text, add_special_tokens=False)["input_ids"]
            *answer, end = example.ids[example.start :]
            assert tokenizer.decode(answer) == conversation[turn][1]
            assert tokenizer.id_to_token(end) == template.stop[0] == theirs.eos_token
            two_turns += turn
    assert two_turns == 10


def test_special_tokens_are_single_and_in_order() -> None:
    assert special_tokens(SUITE.templates["llama-2-chat"]) == (
        "<s>",
        "[INST]",
        "<<SYS>>",
        "<</SYS>>",
        "[/INST]",
        "</s>",
    )
    assert special_tokens(SUITE.templates["llama-3"]) == (
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )


def test_a_window_cuts_answers_and_leaves_out_turns_behind_it(tmp_path: Path) -> None:
    template = SUITE.templates["llama-3"]
    data = corpus.conversations(12, 4)
    tokenizer = train_tokenizer(data, template, SUITE.system_prompt, 400, single_digits=False)
    save_tokenizer(tmp_path, tokenizer, template, 512)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}))
    talk = open_conversation(tmp_path, template, SUITE.system_prompt)
    whole = encode(data, talk, 512)
    assert (whole.left_out, whole.cut, whole.unknown) == (0, 0, {})
    window = whole.turns[0][0].start + 3
    cut = encode(data, talk, window)
    assert cut.turns[0][0].ids == whole.turns[0][0].ids[:window]
    left = sum(len(turns) for turns in whole.turns) - sum(len(turns) for turns in cut.turns)
    assert cut.left_out == left > 0
    assert cut.cut == sum(len(one.ids) == window for turns in cut.turns for one in turns) > 0


def test_a_pass_visits_every_example_in_full_batches() -> None:
    lengths = [1 + (7 * i) % 23 for i in range(101)]
    batches = order(lengths, 8, "a")
    assert {len(batch) for batch in batches} == {8}
    assert {row for batch in batches for row in batch} == set(range(101))
    assert len(batches) == 13
    assert batches == order(lengths, 8, "a") != order(lengths, 8, "b")
    padded = sum(8 * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.3 * sum(lengths)


def test_weighted_loss_ignores_padding_and_weighs_prompts() -> None:
    target = new_target(_config(2), 0.5, 0)
    examples = [Example((1, 2, 3, 4, 5), 3), Example((6, 7, 8), 1)]
    total = weight = 0.0
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.ids])
            log_p = target.head(target(ids, torch.arange(len(example.ids))[None])[0]).log_softmax(-1)[0]
            for t in range(1, len(example.ids)):
                w = 1.0 if t >= example.start else 0.25
                total -= w * log_p[t - 1, example.ids[t]].item()
                weight += w
        value = weighted_loss(target, collate(examples), 0.25).item()
    assert value == pytest.approx(total / weight, rel=1e-5)


def test_training_lowers_the_loss_and_repeats_exactly() -> None:
    examples = [Example(tuple((start + 3 * i) % 40 for i in range(12)), 2) for start in range(40)] * 4

    def trained() -> torch.Tensor:
        target = new_target(_config(2), 0.5, 7)
        train_target(target, examples, dataclasses.replace(TRAINING, rows=8), lambda steps, loss: None)
        assert answer_quality(target, examples)["nll"] < 0.5 * before
        return torch.cat([parameter.detach().flatten() for parameter in target.parameters()])

    before = answer_quality(new_target(_config(2), 0.5, 7), examples)["nll"]
    assert torch.equal(trained(), trained())


def test_quality_is_the_likelihood_of_answers_only() -> None:
    target = new_target(_config(2), 0.5, 0)
    example = Example((1, 2, 3, 4, 5), 3)
    with torch.no_grad():
        log_p = target.head(target(torch.tensor([example.ids]), torch.arange(5)[None])[0])[0].log_softmax(-1)
    quality = answer_quality(target, [example])
    assert quality["nll"] == pytest.approx(F.nll_loss(log_p[2:4], torch.tensor([4, 5])).item(), rel=1e-5)
    assert quality["entropy"] == pytest.approx(-(log_p.exp() * log_p).sum(-1)[2:4].mean().item(), rel=1e-5)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [schedule(step, 100, 10, 0.4) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert rates[-1] == pytest.approx(1 / 40)


@pytest.mark.parametrize("shape", [(3, 6, 10), (2, 12, 5), (1, 7, 7)])
def test_orthogonalize_keeps_directions_and_levels_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    leveled = orthogonalize(matrices)
    for matrix, result in zip(matrices, leveled, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inner = left.T @ result @ right.T
        values = inner.diagonal()
        assert ((values > 0.5) & (values < 1.3)).all()
        assert (inner - values.diag()).abs().max() < 1e-3


def test_muon_steps_every_matrix_by_its_own_gradient() -> None:
    torch.manual_seed(0)
    tall, wide, other = (torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 4), (4, 8), (8, 4)))
    optimizer = Muon([tall, wide, other])
    optimizer.rate = 0.1
    for parameter in (tall, wide, other):
        before = parameter.detach().clone()
        gradient = torch.randn(parameter.shape)
        for p in (tall, wide, other):
            p.grad = gradient.clone() if p is parameter else torch.zeros(p.shape)
        fresh = Muon([tall, wide, other])
        fresh.rate = 0.1
        fresh.step()
        scale = 0.1 * max(1, before.shape[0] / before.shape[1]) ** 0.5
        expected = before - scale * orthogonalize(gradient[None])[0]
        torch.testing.assert_close(parameter.detach(), expected)
        assert parameter.grad is None
