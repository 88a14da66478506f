"""What a target says when it is left alone: user turns after the bare template, then its answers to them.

An instruct model has learnt the template around its conversations, so what it writes where a user would speak is what
it takes for a user's turn (Magpie, Xu et al. 2024). Nothing but the target itself is needed for its training data, and
the answers are its own, decoded as they will be in evaluation.

A shard is a function of recipe, target and the shard's number: its random numbers belong to its turns alone, and which
sequences are computed beside each other, which decides roundings in half precision, follows from the recipe.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, generate
from prism_ae.errors import ConfigError
from prism_ae.models.llama import Llama
from prism_ae.prompts.conversation import Conversation
from prism_ae.recipes.data import DataRecipe, TurnRecipe
from prism_ae.training.written import filters
from prism_ae.training.written.filters import Duplicates, repeated_share
from prism_ae.training.written.shards import Shard, Written

Tick = Callable[[str, int], None]
"""Called at each step of decoding, with "user" or "answer" and the number of tokens that the step writes."""

_CUT_BACK = 8
"""Tokens that a cut answer may lose at its end: a word or a letter of which the limit left a part."""


@dataclasses.dataclass(frozen=True)
class UserSide:
    """How a target is left to write user turns.

    Attributes:
        prompt: token ids of the template up to the user's turn.
        end: the token that the template has at the end of one.
        special_ids, special_texts: of the special tokens.
    """

    prompt: tuple[int, ...]
    end: int
    special_ids: frozenset[int]
    special_texts: tuple[str, ...]


def user_side(conversation: Conversation) -> UserSide:
    """Raises ConfigError for a template whose user turns do not end with a token of their own."""
    template, tokenizer = conversation.template, conversation.tokenizer
    after = template.first.partition("{user}")[2]
    special = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    behind = tokenizer.encode(after, add_special_tokens=False).ids
    if not behind or behind[0] not in special:
        raise ConfigError(
            f"template '{template.name}' has {after[:20]!r} behind a user turn, which is no token of its own: the "
            "target cannot say where a turn ends that it writes",
            "give conversations with --data",
        )
    # As it is read before a text: some tokenizers read spaces at a text's end as other tokens.
    one, other = conversation.prompts([(["A"], []), (["I"], [])])
    prompt = [token for token, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]
    return UserSide(tuple(prompt), behind[0], frozenset(special), tuple(special.values()))


class ShardWriter:
    """Writes shards with one target.

    Args:
        target: in evaluation mode, in the recipe's dtype.
        conversation: with it.

    Raises:
        ConfigError: the template does not say where a user turn ends, or the recipe's turns are too long.
    """

    def __init__(self, target: Llama, conversation: Conversation, recipe: DataRecipe) -> None:
        self._target, self._conversation, self._recipe = target, conversation, recipe
        self._user = user_side(conversation)
        (empty,) = conversation.prompts([([""], [])])
        needed = len(empty) + recipe.user.max_tokens + recipe.answer.max_tokens
        self._positions = target.config.max_position_embeddings
        if needed > self._positions:
            raise ConfigError(
                f"a user turn of {recipe.user.max_tokens:,} tokens and an answer of {recipe.answer.max_tokens:,} take "
                f"{needed:,} with the template, and the target has {self._positions:,} positions",
                "lower data.user.max_tokens or data.answer.max_tokens in the recipe",
            )

    def write(self, number: int, tick: Tick) -> Shard:
        """The shard of this number."""
        recipe, conversation = self._recipe, self._conversation
        dropped, there = Counter[str](), Duplicates()
        turns = self._decoded("user", number, [self._user.prompt] * recipe.attempts, tick)
        users: list[str] = []
        for ids in turns:
            text, reason = self._user_turn(ids)
            if not reason and there.has_user(text):
                reason = filters.SAME_TURN
            dropped[reason] += 1
            users += [] if reason else [text]
        prompts = conversation.prompts([([user], []) for user in users])
        # The same text may be more tokens than were written.
        fits = [len(prompt) + recipe.answer.max_tokens <= self._positions for prompt in prompts]
        asked = [(user, prompt) for user, prompt, fit in zip(users, prompts, fits, strict=True) if fit]
        dropped[filters.LONG_TURN] += len(users) - len(asked)
        answers = self._decoded("answer", number, [prompt for _, prompt in asked], tick)
        found: list[Written] = []
        for (user, _), ids in zip(asked, answers, strict=True):
            told, reason = self._answer(user, ids)
            if told is not None and there.has_answer(told.answer):
                told, reason = None, filters.SAME_ANSWER
            dropped[reason] += 1
            found += [] if told is None else [told]
        spent = sum(map(len, turns)) + sum(map(len, answers))
        counts = {reason: dropped[reason] for reason in filters.REASONS}
        return Shard(tuple(found), recipe.attempts, counts, spent)

    def _decoded(self, side: str, number: int, prompts: Sequence[Sequence[int]], tick: Tick) -> list[Sequence[int]]:
        """What the target writes after each prompt, the end token included.

        Rows that begin together keep the same age: so their keys and values are about equally many, and attention,
        which computes as much for every row as for the longest, wastes little on the others.
        """
        recipe = self._recipe
        turn: TurnRecipe = getattr(recipe, side)
        end_ids: Collection[int] = self._conversation.end_ids
        if side == "user":
            end_ids = {*end_ids, self._user.end}
        longest = max(map(len, prompts), default=0) + turn.max_tokens
        batch = Batch(
            self._target,
            None,
            None,
            rows=recipe.rows,
            max_seq_len=longest,
            uniforms_per_row=turn.max_tokens + 1,
        )

        def job(place: int) -> GenerationJob:
            return GenerationJob(
                question_id=f"{side}/{number}/{place}",
                turns=1,
                prompt=lambda answers: prompts[place],
                temperature=turn.temperature,
                seed=recipe.seed,
                max_new_tokens=turn.max_tokens,
                max_seq_len=longest,
            )

        def on_step() -> bool:
            tick(side, len(batch.lengths))
            return False

        by_length = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        written: list[Sequence[int]] = [()] * len(prompts)
        for start in range(0, len(by_length), recipe.rows):
            places = by_length[start : start + recipe.rows]
            tick(side, len(places))  # reading a prompt writes the first token
            for done in generate(batch, [job(place) for place in places], end_ids, on_step):
                written[places[done.index]] = done.answers[0]
        return written

    def _user_turn(self, ids: Sequence[int]) -> tuple[str, str]:
        """A user turn's text and "", or why it is dropped."""
        recipe = self._recipe.user
        if ids[-1] != self._user.end:
            return "", filters.NO_END
        ids = ids[:-1]
        text = self._conversation.answer_text(ids).strip()
        if self._user.special_ids & set(ids) or any(special in text for special in self._user.special_texts):
            return "", filters.SPECIAL
        if len(ids) < recipe.min_tokens or not text:
            return "", filters.SHORT_TURN
        if repeated_share(ids, self._recipe.ngram) > recipe.max_repeated:
            return "", filters.REPEATED_TURN
        return text, ""

    def _answer(self, user: str, ids: Sequence[int]) -> tuple[Written | None, str]:
        """A conversation and "", or why its answer is dropped."""
        recipe, end = self._recipe.answer, self._conversation.stop_id
        cut = ids[-1] not in self._conversation.end_ids
        content = ids if cut else ids[:-1]
        if len(content) < recipe.min_tokens:
            return None, filters.SHORT_ANSWER
        if repeated_share(content, self._recipe.ngram) > recipe.max_repeated:
            return None, filters.REPEATED_ANSWER
        spelt = self._spelt(content, _CUT_BACK if cut else 0)
        if spelt is None or not (cut or ids[-1] == end):
            return None, filters.RESPELT_ANSWER
        text, count = spelt
        return Written(user, text, count + (not cut), cut), ""

    def _spelt(self, ids: Sequence[int], cut_back: int) -> tuple[str, int] | None:
        """The text that training will read as exactly these tokens, and their number; None where there is none.

        Args:
            cut_back: tokens at the end that may be left out for it.
        """
        for count in range(len(ids), max(0, len(ids) - cut_back - 1), -1):
            text = self._conversation.answer_text(ids[:count])
            if text.strip() == text and self._conversation.answers([text]) == [list(ids[:count])]:
                return text, count
        return None
