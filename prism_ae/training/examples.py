"""From conversations to training examples: token ids, and where the answer begins.

Every turn becomes an example of its own, its prompt rendered and tokenized exactly as in evaluation, so that a model is
trained on the ids that it will meet there. Batches hold whole examples of similar length: positions start at 0 as in
evaluation, and examples do not attend to each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from random import Random

import torch
from torch import Tensor

from prism_ae.mini.corpus import Conversation as Turns
from prism_ae.prompts.conversation import Conversation


@dataclasses.dataclass(frozen=True)
class Example:
    """One turn, or several in a row (`joined`).

    Attributes:
        ids: of prompt and answer, its end token included; of the next question and answer, ….
        start: index at which the first answer begins.
        between: after it, the spans of later questions between two answers: first index and the one after the last.
    """

    ids: tuple[int, ...]
    start: int
    between: tuple[tuple[int, int], ...] = ()

    def is_answer(self) -> list[bool]:
        """For each token whether it belongs to an answer."""
        found = [index >= self.start for index in range(len(self.ids))]
        for begin, end in self.between:
            found[begin:end] = [False] * (end - begin)
        return found


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Conversations as examples.

    Attributes:
        turns: per conversation its turns, cut to max_seq_len.
        left_out: turns whose answer begins beyond it.
        cut: turns whose answer ends beyond it.
        unknown: conversation's number -> its tokens that are outside the target's vocabulary; it has no turns then.
    """

    turns: list[list[Example]]
    left_out: int
    cut: int
    unknown: dict[int, str]


def encode(
    data: Sequence[Turns], conversation: Conversation, max_seq_len: int, cut_answers: Collection[int] = ()
) -> Encoded:
    """Per conversation its turns as examples, in the ids that evaluation gives the target.

    Args:
        data: conversations, each of (question, answer).
        conversation: with the target that is trained, or trained for.
        max_seq_len: most tokens of an example.
        cut_answers: numbers of conversations whose last answer has no end token (`jsonl.Told.cut`).
    """
    turns: list[list[Example]] = [[] for _ in data]
    unknown: dict[int, str] = {}
    left_out = cut = 0
    texts = [answer.strip() for told in data for _, answer in told]
    flat = iter(conversation.answers(texts))
    answers = [[next(flat) for _ in told] for told in data]
    fed_back: list[list[str]] = [[] for _ in data]
    going = list(range(len(data)))
    # Turn by turn, because all prompts after one that is too long are too long as well.
    for turn in range(max((len(told) for told in data), default=0)):
        going = [row for row in going if turn < len(data[row])]
        asked = [([user for user, _ in data[row][: turn + 1]], fed_back[row]) for row in going]
        still = []
        for row, prompt in zip(going, conversation.prompts(asked), strict=True):
            answer = answers[row][turn]
            if more := conversation.unknown([*prompt, *answer]):
                unknown[row], turns[row] = more, []
            elif len(prompt) >= max_seq_len:
                left_out += len(data[row]) - turn
            else:
                is_cut = row in cut_answers and turn == len(data[row]) - 1
                ids = [*prompt, *answer, *([] if is_cut else [conversation.stop_id])]
                cut += len(ids) > max_seq_len
                turns[row].append(Example(tuple(ids[:max_seq_len]), len(prompt)))
                fed_back[row].append(conversation.answer_text(answer))
                still.append(row)
        going = still
    return Encoded(turns, left_out, cut, unknown)


def joined(turns: Sequence[Example]) -> list[Example]:
    """A conversation's turns as few examples: one for all turns in a row whose prompt begins with all before it.

    The loss at a token depends on the tokens before it alone, so the same is learnt from fewer tokens. Where a template
    changes an answer that it feeds back, the turns stay apart.
    """
    found: list[Example] = []
    for turn in turns:
        last = found[-1] if found else None
        if last and turn.start >= len(last.ids) and turn.ids[: len(last.ids)] == last.ids:
            found[-1] = Example(turn.ids, last.start, (*last.between, (len(last.ids), turn.start)))
        else:
            found.append(turn)
    return found


@dataclasses.dataclass(frozen=True)
class ExampleBatch:
    """Examples side by side, padded at the end.

    Attributes:
        ids: token ids [B, T], 0 where padded.
        answer: whether a position holds a token of the answer [B, T].
        lengths: of the rows [B].
    """

    ids: Tensor
    answer: Tensor
    lengths: Tensor


def collate(examples: Sequence[Example]) -> ExampleBatch:
    """B examples side by side, padded to the longest."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    answer = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        answer[row, : len(example.ids)] = torch.tensor(example.is_answer())
    return ExampleBatch(ids, answer, torch.tensor([len(example.ids) for example in examples]))


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
    span = rows * _SORTED_BATCHES
    batches = []
    for start in range(0, len(indices), span):
        similar = sorted(indices[start : start + span], key=lambda index: lengths[index])
        batches += [similar[at : at + rows] for at in range(0, len(similar), rows)]
    random.shuffle(batches)
    return batches


def order_by_tokens(lengths: Sequence[int], tokens: int, seed: str) -> list[list[int]]:
    """As `order`, but a batch has about ``tokens`` tokens, whatever the number of its examples.

    A pass has `batches_by_tokens` batches, fewer where examples are longer than that; each has every example once.
    """
    random = Random(seed)
    indices = list(range(len(lengths)))
    random.shuffle(indices)
    batches: list[list[int]] = [[] for _ in range(batches_by_tokens(lengths, tokens))]
    span = max(1, _SORTED_BATCHES * len(lengths) // len(batches))
    total, before = sum(lengths), 0
    for number, start in enumerate(range(0, len(indices), span)):
        # Up and down, so that a batch that has a part of two spans has similar ones, too.
        for index in sorted(indices[start : start + span], key=lambda index: lengths[index], reverse=number % 2 == 1):
            # The batch in which its middle lies, of equal parts of all tokens.
            batches[(2 * before + lengths[index]) * len(batches) // (2 * total)].append(index)
            before += lengths[index]
    found = [batch for batch in batches if batch]
    random.shuffle(found)
    return found


def batches_by_tokens(lengths: Sequence[int], tokens: int) -> int:
    """Batches of a pass in which each has about ``tokens`` tokens."""
    return max(1, round(sum(lengths) / tokens))


_SORTED_BATCHES = 8
"""Batches whose examples are sorted by length together: enough to pad little, few enough to keep batches mixed."""
