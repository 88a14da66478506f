"""From conversations to what a model is trained on: token ids, and where the answer begins.

Every turn becomes an example of its own, its prompt rendered and tokenized exactly as evaluation does it, so that a
model is never trained on ids that it would not meet. Batches hold whole examples of similar length: positions start at
0 as in evaluation, and nothing attends across examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from prism_ae.prompts.templates import render_turn, stop_ids
from prism_ae.suites.records import Template
from prism_ae.training.corpus import Conversation


@dataclasses.dataclass(frozen=True)
class Example:
    """One turn: ``ids`` of prompt and answer (its end token included); the answer begins at index ``start``."""

    ids: tuple[int, ...]
    start: int


def encode(
    data: Sequence[Conversation], tokenizer: Tokenizer, template: Template, system: str, window: int
) -> list[list[Example]]:
    """Per conversation its turns as examples, cut to ``window`` tokens; a turn whose answer lies behind it is left out.

    Raises:
        CheckpointError: the tokenizer lacks the template's end token.
    """
    end = stop_ids(template, tokenizer)[0]
    prompts, answers = [], []
    for conversation in data:
        users = [user for user, _ in conversation]
        said = [answer for _, answer in conversation]
        for turn in range(len(conversation)):
            prompts.append(render_turn(template, system, users[: turn + 1], said[:turn]))
            answers.append(said[turn].strip())
    prompt_ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(prompts, add_special_tokens=False)]
    answer_ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(answers, add_special_tokens=False)]
    pairs = iter(zip(prompt_ids, answer_ids, strict=True))
    encoded = []
    for conversation in data:
        turns = []
        for _ in conversation:
            prompt, answer = next(pairs)
            if len(prompt) < window:
                turns.append(Example(tuple([*prompt, *answer, end][:window]), len(prompt)))
        encoded.append(turns)
    return encoded


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples side by side, padded at the end.

    Attributes:
        ids: token ids [B, T], 0 where padded.
        answer: whether a position holds a token of the answer [B, T].
        lengths: of the rows [B].
    """

    ids: Tensor
    answer: Tensor
    lengths: Tensor


def collate(examples: Sequence[Example]) -> Batch:
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    answer = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        answer[row, example.start : len(example.ids)] = True
    return Batch(ids, answer, torch.tensor([len(example.ids) for example in examples]))


def order(lengths: Sequence[int], rows: int, seed: str) -> list[list[int]]:
    """Indices of each batch of one pass: random, but with rows of similar length in a batch.

    Args:
        lengths: of the examples.
        rows: examples per batch; a last batch that would be smaller is filled up from the beginning of the pass.
        seed: the same seed, the same order.
    """
    random = Random(seed)
    indices = list(range(len(lengths)))
    random.shuffle(indices)
    indices += indices[: -len(indices) % rows]
    window = rows * _WINDOW
    batches = []
    for start in range(0, len(indices), window):
        similar = sorted(indices[start : start + window], key=lambda index: lengths[index])
        batches += [similar[at : at + rows] for at in range(0, len(similar), rows)]
    random.shuffle(batches)
    return batches


_WINDOW = 8
"""Batches whose examples are sorted by length together: enough to pad little, few enough to keep batches mixed."""
