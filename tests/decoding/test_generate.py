"""The loop: stop tokens, limits, conversations, refilling, and independence of what is decoded beside a question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target
from decoding_reference import Reference

from prism_ae.cells import TreeShape
from prism_ae.decoding import generate as generate_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.decoding.sampling import question_uniforms
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama

SHAPE = TreeShape(3, 3, 8)
TIE = 1e-4


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 15, (count,), generator=generator).tolist()
    return [torch.randint(0, 29, (length,), generator=generator).tolist() for length in lengths]


def make_jobs(
    texts: Sequence[Sequence[int]], new: int = 12, max_seq_len: int = 90, turns: int = 1
) -> list[GenerationJob]:
    return [
        GenerationJob(f"q{number}", turns, lambda _, text=text: text, float(number % 2), 11, new, max_seq_len)
        for number, text in enumerate(texts)
    ]


def run(
    target: Llama,
    drafter: Drafter | None,
    shape: TreeShape | None,
    jobs: Sequence[GenerationJob],
    rows: int = 4,
    stop: Sequence[int] = (),
    max_seq_len: int = 100,
) -> list[GenerationResult]:
    batch = Batch(
        target,
        drafter,
        shape,
        rows=rows,
        max_seq_len=max_seq_len,
        uniforms_per_row=max(job.max_new_tokens for job in jobs) + 8,
    )
    return sorted(generate(batch, jobs, stop, lambda: False), key=lambda answered: answered.index)


@pytest.mark.parametrize("kind", KINDS)
def test_every_drafter_writes_what_the_target_writes_alone(kind: str) -> None:
    """At T = 0 and at T = 1: the randomness belongs to the question."""
    target = make_target(4)
    drafter, jobs = make_drafter(kind, target), make_jobs(prompts(10))
    vanilla = run(target, None, None, jobs)
    assert all(a.sample.rounds == 0 and a.sample.histogram == () for a in vanilla)
    for shape in (SHAPE, TreeShape(3, 1, 4), TreeShape(1, 4, 5), TreeShape(4, 4, 2)):
        answered = run(target, drafter, shape, jobs)
        assert [a.answers for a in answered] == [a.answers for a in vanilla]
        assert [a.sample.output_sha256 for a in answered] == [a.sample.output_sha256 for a in vanilla]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_transformers(kind: str, tmp_path: object) -> None:
    """fp32, against `generate` of the same checkpoint; the first divergence, if any, must be a tie."""
    from pathlib import Path

    from transformers import LlamaForCausalLM

    from prism_ae.models.checkpoints import save_target

    assert isinstance(tmp_path, Path)
    target = make_target(4, dtype=torch.float32)
    save_target(tmp_path, target)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    texts = prompts(8)
    jobs = [GenerationJob(f"q{n}", 1, lambda _, text=text: text, 0.0, 0, 20, 90) for n, text in enumerate(texts)]
    drafter = make_drafter(kind, target)
    for shape in (SHAPE, TreeShape(4, 1, 5), TreeShape(2, 5, 20)):
        for text, answered in zip(texts, run(target, drafter, shape, jobs), strict=True):
            ids = torch.tensor([text])
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0
            )[0, len(text) :].tolist()
            got = list(answered.answers[0])
            if got != expected:
                at = next(place for place, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
                top = theirs(torch.tensor([text + expected[:at]])).logits[0, -1].topk(2).values
                assert top[0] - top[1] < TIE, f"place {at}: {got}, not {expected}, gap {top[0] - top[1]}"


@pytest.mark.parametrize("kind", KINDS)
def test_batch_1_and_batch_48_accept_the_same(kind: str) -> None:
    """fp32; other questions beside it, other order of the rest. A difference must be a tie of the reference."""
    target = make_target(4, dtype=torch.float32)
    drafter, jobs = make_drafter(kind, target), make_jobs(prompts(52))
    crowded = run(target, drafter, SHAPE, jobs, rows=48)
    alone = run(target, drafter, SHAPE, jobs[:16], rows=1)
    mixed = run(target, drafter, SHAPE, jobs[15::-1], rows=5)[::-1]
    for number in range(16):
        for other in (alone[number], mixed[number]):
            same = (
                other.answers == crowded[number].answers and other.sample.histogram == crowded[number].sample.histogram
            )
            assert same or _tie(target, drafter, jobs[number]), (number, other, crowded[number])


def _tie(target: Llama, drafter: Drafter, job: GenerationJob) -> bool:
    """Whether the reference meets two drafts whose scores fp32 may order either way (texts are compared elsewhere)."""
    reference = Reference(target, drafter, SHAPE)
    _, _, drafts = reference.answer(
        list(job.prompt(())), job.max_new_tokens, job.temperature, job.seed, job.question_id
    )
    return min(draft.margin for draft in drafts) < TIE


def test_temperatures_share_a_batch_without_touching_each_other() -> None:
    target = make_target(4)
    drafter, jobs = make_drafter("prism", target), make_jobs(prompts(8))
    together = run(target, drafter, SHAPE, jobs, rows=8)
    apart = [run(target, drafter, SHAPE, [job])[0] for job in jobs]
    assert [a.answers for a in together] == [a.answers for a in apart]


def test_sampling_all_nodes_at_once_gives_the_same() -> None:
    """What a GPU does, done here."""
    target = make_target(4)
    drafter, jobs = make_drafter("prism", target), make_jobs(prompts(10))
    batch = Batch(target, drafter, SHAPE, rows=4, max_seq_len=100, uniforms_per_row=40)
    assert not batch.sample_at_once
    batch.sample_at_once = True
    at_once = sorted(generate(batch, jobs, (3, 17), lambda: False), key=lambda answered: answered.index)
    lazily = run(target, drafter, SHAPE, jobs, stop=(3, 17))
    assert [a.answers for a in at_once] == [a.answers for a in lazily]
    assert [a.sample.histogram for a in at_once] == [a.sample.histogram for a in lazily]


@pytest.mark.parametrize("shape", [None, SHAPE], ids=["vanilla", "tree"])
def test_an_answer_ends_at_its_first_end_token(shape: TreeShape | None) -> None:
    target = make_target(4)
    drafter, jobs = make_drafter("prism", target) if shape else None, make_jobs(prompts(12), new=30)
    free = run(target, drafter, shape, jobs)
    stop = (3, 17)
    stopped = run(target, drafter, shape, jobs, stop=stop)
    ends = set()
    for whole, cut in zip(free, stopped, strict=True):
        tokens = whole.answers[0]
        place = next((n for n, token in enumerate(tokens, start=1) if token in stop), None)
        assert cut.answers[0] == tokens[:place]
        assert cut.sample.stops == (("end",) if place else ("length",))
        assert cut.sample.generated_tokens == len(cut.answers[0])
        ends.add(cut.sample.stops[0])
    assert ends == {"end", "length"}


@pytest.mark.parametrize("new", [1, 2, 7])
def test_max_new_tokens_is_never_exceeded(new: int) -> None:
    target = make_target(4)
    for drafter, shape in ((None, None), (make_drafter("prism", target), SHAPE)):
        for answered in run(target, drafter, shape, make_jobs(prompts(6), new=new)):
            assert len(answered.answers[0]) == new
            assert answered.sample.stops == ("length",)
            assert sum(answered.sample.histogram) == answered.sample.rounds


def test_accepted_drafts_behind_the_cut_still_count() -> None:
    """The histogram says what verification accepted, also in a round that the limit cuts."""
    target = make_target(4)
    drafter = make_drafter("prism", target)
    cut = [run(target, drafter, SHAPE, make_jobs(prompts(6), new=new), rows=1) for new in range(2, 12)]
    for answers in cut:
        for answered in answers:
            sample = answered.sample
            accepted = sum(drafts * rounds for drafts, rounds in enumerate(sample.histogram))
            committed = 1 + accepted + sample.rounds
            assert sample.generated_tokens <= committed <= sample.generated_tokens + SHAPE.steps
    assert any(
        1 + sum(d * r for d, r in enumerate(a.sample.histogram)) + a.sample.rounds > a.sample.generated_tokens
        for answers in cut
        for a in answers
    )


def test_the_rounds_of_each_turn_are_listed_in_their_order() -> None:
    """Against rounds that are driven one by one, and read off until the answer's end."""
    target, stop = make_target(4), (3, 17)
    drafter, texts = make_drafter("prism", target), prompts(8)
    jobs, every = make_jobs(texts, turns=2), 0
    for answered, text, job in zip(run(target, drafter, SHAPE, jobs, stop=stop), texts, jobs, strict=True):
        sample, listed = answered.sample, []
        for turn, answer in enumerate(answered.answers):
            batch = Batch(target, drafter, SHAPE, rows=1, max_seq_len=100, uniforms_per_row=20)
            batch.admit([text], [question_uniforms(11, job.question_id, turn, 20)], [job.temperature])
            written, rounds = 1, []
            while written < len(answer):
                (tokens,) = batch.round()
                rounds.append(len(tokens) - 1)
                written += len(tokens)
            listed.append(tuple(rounds))
        assert sample.accepted == tuple(listed)
        assert sample.turn_tokens == tuple(map(len, answered.answers))
        assert sample.problem() == ""
        every += sum(map(len, listed))
    assert every > 20


def test_max_seq_len_holds_prompt_and_answer() -> None:
    target = make_target(4)
    texts = prompts(8)
    for drafter, shape in ((None, None), (make_drafter("prism", target), SHAPE)):
        jobs = make_jobs(texts, new=40, max_seq_len=12)
        for text, answered in zip(texts, run(target, drafter, shape, jobs, max_seq_len=12), strict=True):
            assert len(text) + len(answered.answers[0]) == max(12, len(text))
            assert answered.sample.stops == ("window",)


def test_a_prompt_that_fills_max_seq_len_is_answered_by_nothing() -> None:
    target = make_target(4)
    (answered, *_) = run(target, None, None, make_jobs([[1] * 12, [2] * 3], max_seq_len=12), max_seq_len=12)
    assert (answered.answers, answered.sample.stops, answered.sample.rounds) == (((),), ("window",), 0)


def test_up_to_the_last_position_of_the_models() -> None:
    """All of the target's are used, whatever drafts: a drafter's own may end before, and trees reach behind."""
    target = make_target(4, positions=40)
    jobs = make_jobs(prompts(6), new=60, max_seq_len=40)
    expected = run(target, None, None, jobs, max_seq_len=40)
    assert {a.sample.stops for a in expected} == {("window",)}
    for positions in (20, 30, 40, 50):
        drafter = make_drafter("prism", target, positions=positions)
        got = run(target, drafter, SHAPE, jobs, max_seq_len=40)
        assert [a.answers for a in got] == [a.answers for a in expected]
        assert {a.sample.prompt_tokens + a.sample.generated_tokens for a in got} == {40}
    with pytest.raises(ValueError, match="positions"):
        Batch(target, drafter, SHAPE, rows=1, max_seq_len=41, uniforms_per_row=10)


def test_the_second_turn_sees_the_first_answer() -> None:
    target = make_target(4)
    drafter, firsts = make_drafter("prism", target), prompts(6)
    seen: dict[int, list[list[int]]] = {}

    def job(number: int) -> GenerationJob:
        def prompt(answers: Sequence[Sequence[int]]) -> list[int]:
            seen[number] = [list(answer) for answer in answers]
            return firsts[number] + [token for answer in answers for token in [*answer, number]]

        return GenerationJob(f"q{number}", 2, prompt, float(number % 2), 5, 9, 80)

    answered = run(target, drafter, SHAPE, [job(n) for n in range(6)], rows=2, stop=(3, 17))
    vanilla = run(target, None, None, [job(n) for n in range(6)], rows=3, stop=(3, 17))
    for number, (with_tree, without) in enumerate(zip(answered, vanilla, strict=True)):
        first, second = with_tree.answers
        assert with_tree.answers == without.answers
        assert seen[number] == [list(first)]
        assert with_tree.sample.turns == len(with_tree.sample.stops) == 2
        assert with_tree.sample.prompt_tokens == 2 * len(firsts[number]) + len(first) + 1
        assert with_tree.sample.generated_tokens == len(first) + len(second)
        text = "[[" + "],[".join(",".join(map(str, answer)) for answer in (first, second)) + "]]"
        assert with_tree.sample.output_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert len({a.sample.output_sha256 for a in answered}) == 6


def test_the_turns_of_a_question_have_numbers_of_their_own() -> None:
    """The same prompt twice, at T = 1: other numbers, so another answer."""
    target = make_target(4)
    jobs = [GenerationJob("q", 2, lambda _: [1, 2, 3], 1.0, 5, 20, 80)]
    (answered,) = run(target, None, None, jobs)
    assert answered.answers[0] != answered.answers[1]


def test_stopping_drops_what_is_under_way() -> None:
    target = make_target(4)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 8

    batch = Batch(target, make_drafter("prism", target), SHAPE, rows=2, max_seq_len=100, uniforms_per_row=60)
    done = list(generate(batch, make_jobs(prompts(20), new=10), (), should_stop))
    assert asked == 9
    assert 0 < len(done) < 20


def test_seconds_are_measured_for_each_question() -> None:
    target = make_target(4)
    for answered in run(target, make_drafter("prism", target), SHAPE, make_jobs(prompts(5)), rows=2):
        assert answered.sample.prefill_seconds > 0
        assert answered.sample.decode_seconds > 0


def test_prompts_are_read_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding included, also where a long prompt follows many short ones; a longer one is read alone."""
    target, limit = make_target(4), 24
    lengths = [2, 2, 2, 2, 12, 12, 30, 3]
    texts = [torch.randint(0, 29, (length,), generator=torch.Generator().manual_seed(9)).tolist() for length in lengths]
    jobs, read, admit = make_jobs(texts, new=3), [], Batch.admit
    expected = run(target, None, None, jobs, rows=8)

    def watched(self: Batch, prompts: Sequence[Sequence[int]], *rest: Any) -> list[int]:
        read.append([len(prompt) for prompt in prompts])
        return admit(self, prompts, *rest)

    monkeypatch.setattr(Batch, "admit", watched)
    monkeypatch.setattr(generate_module, "PREFILL_TOKENS", limit)
    answered = run(target, None, None, jobs, rows=8)
    assert read == [[2, 2, 2, 2], [12, 12], [30], [3]]
    assert all(len(part) * max(part) <= limit or len(part) == 1 for part in read)
    assert [a.answers for a in answered] == [a.answers for a in expected]


@pytest.mark.parametrize("where", ["target", "module 0", "module 1"])
def test_numbers_that_are_not_finite_are_an_error_and_no_text(where: str) -> None:
    """As float16 gives them for weights beyond its range; they must not pass for tokens or for bad drafts."""
    target = make_target(4)
    drafter, jobs = make_drafter("prism", target), make_jobs(prompts(3))
    spoiled = target.norm.weight if where == "target" else drafter.modules_[int(where[-1])].fusion.weight
    spoiled[0] = float("inf")
    with pytest.raises(CheckpointError, match="not finite in float64"):
        run(target, drafter, SHAPE, jobs)
