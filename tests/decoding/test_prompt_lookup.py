"""Prompt lookup: its drafts by definition, and a batch that drafts with it, against texts that are looked through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch
from decoding_models import make_target

from prism_ae.cells import TreeShape
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.decoding.lookup import LookupDrafting, PromptLookup, look_up
from prism_ae.models.llama import Llama

CHAIN = TreeShape(4, 1, 5)
LOOKUP = PromptLookup(1, 3)
VOCAB = 29


def starts(text: Sequence[int], size: int) -> list[int]:
    """Where the last ``size`` tokens occurred before, the earliest first."""
    return [start for start in range(len(text) - size) if text[start : start + size] == text[-size:]]


def by_definition(text: Sequence[int], lookup: PromptLookup, steps: int) -> list[int]:
    for size in range(lookup.max_ngram, lookup.min_ngram - 1, -1):
        if size < len(text) and (found := starts(text, size)):
            return list(text[found[-1] + size : found[-1] + size + steps])
    return []


def first_occurrence(text: Sequence[int], lookup: PromptLookup, steps: int) -> list[int]:
    for size in range(lookup.max_ngram, lookup.min_ngram - 1, -1):
        if size < len(text) and (found := starts(text, size)):
            return list(text[found[0] + size : found[0] + size + steps])
    return []


def shortest_first(text: Sequence[int], lookup: PromptLookup, steps: int) -> list[int]:
    for size in range(lookup.min_ngram, lookup.max_ngram + 1):
        if size < len(text) and (found := starts(text, size)):
            return list(text[found[-1] + size : found[-1] + size + steps])
    return []


def texts(count: int, letters: int, longest: int = 24) -> list[list[int]]:
    generator = torch.Generator().manual_seed(letters)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [torch.randint(0, letters, (length,), generator=generator).tolist() for length in lengths]


def drafts(rows: Sequence[Sequence[int]], lookup: PromptLookup, steps: int) -> list[list[int]]:
    """`look_up` of texts of several lengths, behind whose ends there is something that would match."""
    width = max(map(len, rows)) + 2
    padded = torch.tensor([[*row, *([row[-1]] * (width - len(row)))] for row in rows])
    tokens, counts = look_up(padded, torch.tensor([len(row) for row in rows]), lookup, steps)
    return [line[:count] for line, count in zip(tokens.tolist(), counts.tolist(), strict=True)]


@pytest.mark.parametrize("lookup", [LOOKUP, PromptLookup(2, 2), PromptLookup(1, 1), PromptLookup(2, 5)])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_drafts_are_what_followed_the_most_recent_of_the_longest(lookup: PromptLookup, steps: int) -> None:
    for letters in (2, 3, 8):
        rows = texts(400, letters)
        found = drafts(rows, lookup, steps)
        assert found == [by_definition(row, lookup, steps) for row in rows]
        assert {len(draft) for draft in found} >= {0, 1}


@pytest.mark.parametrize("wrong", [first_occurrence, shortest_first])
def test_another_rule_would_be_noticed(wrong: Callable[[Sequence[int], PromptLookup, int], list[int]]) -> None:
    rows = texts(400, 3)
    assert drafts(rows, LOOKUP, 4) != [wrong(row, LOOKUP, 4) for row in rows]


def test_where_there_is_one_occurrence_it_drafts_as_transformers_does() -> None:
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    generator = PromptLookupCandidateGenerator(
        eos_token_id=torch.tensor([-1]), num_output_tokens=4, max_matching_ngram_size=3, max_length=1000
    )
    compared = 0
    for row in texts(600, 8):
        sizes = [size for size in (3, 2, 1) if size < len(row) and starts(row, size)]
        if sizes and len(starts(row, sizes[0])) == 1:
            candidates, _ = generator.get_candidates(torch.tensor([row]))
            assert drafts([row], LOOKUP, 4) == [candidates[0, len(row) :].tolist()]
            compared += 1
    assert compared > 100


def jobs(count: int, new: int = 14) -> list[GenerationJob]:
    """Prompts that repeat themselves; greedy and sampled in turn."""
    prompts = [text * 3 for text in texts(count, VOCAB, 6)]
    return [
        GenerationJob(f"q{n}", 1, lambda _, prompt=prompt: prompt, float(n % 2), 11, new, 90)
        for n, prompt in enumerate(prompts)
    ]


def answer(
    target: Llama, asked: Sequence[GenerationJob], lookup: PromptLookup | None, rows: int = 4, lookahead: int = 0
) -> list[GenerationResult]:
    uniforms = max(job.max_new_tokens for job in asked) + lookahead + 8
    shape = CHAIN if lookup else None
    batch = Batch(target, lookup, shape, rows=rows, max_seq_len=100, uniforms_per_row=uniforms)
    return sorted(generate(batch, asked, (), lambda: False, lookahead), key=lambda answered: answered.index)


def test_the_text_is_the_targets_and_rounds_accept_what_the_definition_drafts() -> None:
    """Replayed over the text that the target writes alone."""
    target, asked = make_target(4, vocab=VOCAB), jobs(20)
    longer = [dataclasses.replace(job, max_new_tokens=24) for job in asked]
    accepted = 0
    for job, alone, found in zip(asked, answer(target, longer, None), answer(target, asked, LOOKUP), strict=True):
        text = list(alone.answers[0])
        assert list(found.answers[0]) == text[: len(found.answers[0])]
        written, expected = 1, []
        while written < job.max_new_tokens:
            draft = by_definition([*job.prompt([]), *text[:written]], LOOKUP, CHAIN.steps)
            same = next((n for n, token in enumerate(draft) if token != text[written + n]), len(draft))
            expected.append(same)
            written += same + 1
        assert list(found.sample.accepted[0]) == expected
        accepted += sum(expected)
    assert accepted > 20


def test_what_is_decoded_beside_it_changes_nothing() -> None:
    target, asked = make_target(4, vocab=VOCAB), jobs(20)
    crowded, alone = answer(target, asked, LOOKUP, rows=16), answer(target, asked, LOOKUP, rows=1)
    assert [one.sample.accepted for one in crowded] == [one.sample.accepted for one in alone]
    assert [one.answers for one in crowded] == [one.answers for one in alone]


def test_a_known_text_changes_nothing() -> None:
    target, asked = make_target(4, vocab=VOCAB), jobs(12)
    fresh = answer(target, asked, LOOKUP, lookahead=6)
    known = [dataclasses.replace(job, known_texts=one.written) for job, one in zip(asked, fresh, strict=True)]
    again = answer(target, known, LOOKUP)
    assert [one.sample.accepted for one in again] == [one.sample.accepted for one in fresh]


def test_where_nothing_occurred_before_a_round_drafts_nothing() -> None:
    drafting = LookupDrafting(LOOKUP, CHAIN, 2, 20, device=torch.device("cpu"))
    prompts, roots = torch.tensor([[1, 2, 3, 0], [4, 5, 4, 5]]), torch.tensor([9, 4])
    drafting.prefill(0, prompts, torch.zeros(2, 4, 1), torch.tensor([2, 3]), roots)
    prefix = torch.zeros(2, 1, 4)
    tree = drafting.draft_tree(roots, torch.tensor([3, 4]), [1, 1], prefix)
    assert tree.tokens[1].tolist() == [4, 5, 4]
    assert tree.parents.tolist() == [[-1, -2, -2], [-1, 0, 1]]
    alone = drafting.draft_tree(roots[:1], torch.tensor([3]), [1], prefix[:1])
    assert alone.tokens.tolist() == [[9]]


def test_it_drafts_chains_alone() -> None:
    with pytest.raises(ValueError, match=r"4,4,16"):
        LookupDrafting(LOOKUP, TreeShape(4, 4, 16), 2, 20, device=torch.device("cpu"))
