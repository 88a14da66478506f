"""A batch of sequences on the device: prompts in, rounds of draft, verify and commit, rows out.

Everything per token happens here in tensors over all rows in use; the host learns, once a round, what was accepted.
Decoding without a drafter is the same round with a tree of the root alone: one token per round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding.cache import HIDDEN, KVCache
from prism_ae.decoding.drafting import Drafting
from prism_ae.decoding.expected import UNKNOWN, along, left_out
from prism_ae.decoding.sampling import choose
from prism_ae.decoding.tree import DraftTree, root_only, visible
from prism_ae.decoding.verify import Walk, walk
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama

_Verified = tuple[Walk, Tensor, Tensor | None]


class Batch:
    """Rows that decode together; the rows in use are the first ``len(lengths)``.

    Args:
        target: in evaluation mode.
        drafter: with its tree's shape, or None for both.
        rows: sequences at most.
        window: tokens of prompt and answer together at most; no more than the target has positions. A drafter may have
            fewer: then it drafts at positions that it was not trained on, and never ends an answer.
        numbers: uniform numbers per row that `admit` is given: the longest answer plus the tree's depth plus 1.
    """

    def __init__(
        self, target: Llama, drafter: Drafter | None, shape: TreeShape | None, rows: int, window: int, numbers: int
    ) -> None:
        if (drafter is None) != (shape is None):
            raise ValueError("a drafter needs the shape of its trees, and a shape a drafter")
        if window > target.config.max_position_embeddings:
            raise ValueError(f"a window of {window} tokens is beyond the target's positions")
        for model in (target, drafter):
            if model is not None:  # drafts may lie behind the window: they are verified, and never committed
                model.rotary.reserve(window + (shape.steps if shape else 0))
        config, parameter = target.config, next(target.parameters())
        self.target, self.device, self.dtype = target, parameter.device, parameter.dtype
        self.rows, self.numbers = rows, numbers
        self.depth = shape.steps if shape else 0
        self.capture = drafter.config.capture if drafter else ()
        self.sample_at_once = self.device.type != "cpu"
        """Whether the target's token is computed for all nodes at once, or for visited nodes only. On a CPU most nodes
        are saved that way; on a GPU reading the head's weights once per level would cost more than the nodes."""
        self.cache = KVCache(
            config.num_hidden_layers,
            rows,
            config.num_key_value_heads,
            target_slots(shape, window),
            config.head_dim,
            self.dtype,
            self.device,
        )
        self.drafting = Drafting(drafter, shape, rows, window) if drafter and shape else None
        self.lengths: list[int] = []
        """Committed tokens of each row in use that the target has read: all but the root."""
        self._counts: list[int] = []
        self._length = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._root = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._answered = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._numbers = torch.zeros(rows, numbers, dtype=torch.float64, device=self.device)
        self._temperature = torch.zeros(rows, dtype=torch.float64, device=self.device)
        self._expected = torch.full((rows, numbers), UNKNOWN, device=self.device)
        self._is_expected: list[bool] = []

    @torch.inference_mode()
    def admit(
        self,
        prompts: Sequence[Sequence[int]],
        numbers: Sequence[NDArray[np.float64]],
        temperatures: Sequence[float],
        expected: Sequence[Sequence[int]] | None = None,
    ) -> list[int]:
        """Read prompts into free rows, behind those in use; returns the first token of each answer.

        Args:
            prompts: token ids, at least one each.
            numbers: uniform numbers of each answer's positions.
            temperatures: 0 is greedy.
            expected: the answers that the target is expected to write, and what it would write behind them; empty
                where that is not known. See `prism_ae.decoding.expected`.
        """
        first, count = len(self.lengths), len(prompts)
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.zeros(count, max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        ids = ids.to(self.device)
        new, every = slice(first, first + count), torch.arange(count, device=self.device)
        self._length[new] = torch.tensor(lengths, device=self.device)
        self._numbers[new] = torch.from_numpy(np.stack(numbers)).to(self.device)
        self._temperature[new] = torch.tensor(temperatures, dtype=torch.float64, device=self.device)
        self._answered[new] = 1
        for row, answer in enumerate(expected or [()] * count, start=first):
            known = torch.tensor(answer[: self.numbers], dtype=torch.long)
            self._expected[row] = UNKNOWN
            self._expected[row, : len(known)] = known.to(self.device)
            self._is_expected.append(len(known) > 0)
        positions = torch.arange(max(lengths), device=self.device).unsqueeze(0)
        hidden, captured = self.target(ids, positions, self.cache.fresh(first, count), self.capture)
        last = self._length[new] - 1
        logits = self.target.head(hidden[every, last])
        self._check("the target", bool(torch.isfinite(logits).all()))
        roots = choose(logits, self._numbers[new, 0], self._temperature[new])
        self._root[new] = roots
        if self.drafting:
            self.drafting.prefill(first, ids, hidden if captured is None else captured, last, roots)
        self.lengths += lengths
        self._counts += [1] * count
        return roots.tolist()

    @torch.inference_mode()
    def round(self) -> list[list[int]]:
        """Draft, verify and commit, once for every row in use.

        Returns:
            Per row the tokens committed: the accepted drafts and the bonus token.

        Raises:
            CheckpointError: target or drafter compute numbers that are not finite; `admit` raises it, too.
        """
        rows, longest = len(self.lengths), max(self.lengths)
        length, root, answered = self._length[:rows], self._root[:rows], self._answered[:rows]
        seen = torch.arange(longest, device=self.device) < length.unsqueeze(1)
        prefix = torch.where(seen, 0.0, HIDDEN).to(self.dtype).unsqueeze(1)
        tree = self.drafting.grow(root, length, self._counts, prefix) if self.drafting else root_only(root)
        done, hidden, captured = self._verify_expected(tree, length, answered, prefix) or self._verify_all(
            tree, length, answered, prefix
        )
        finite = torch.isfinite(hidden).all()
        if self.dtype == torch.float16 and not bool(finite):
            done, hidden, captured = self._verify_step_by_step(tree, length, answered, prefix)
            finite = torch.isfinite(hidden).all()
        places = torch.arange(self.depth + 1, device=self.device)
        self.cache.keep(longest + done.nodes, length.unsqueeze(1) + places)
        counts = done.accepted + 1
        self._root[:rows] = done.tokens.gather(1, done.accepted.unsqueeze(1)).squeeze(1)
        self._length[:rows] += counts
        self._answered[:rows] += counts
        if self.drafting:
            features = hidden if captured is None else captured
            kept = features.gather(1, done.nodes.unsqueeze(2).expand(-1, -1, features.shape[-1]))
            self.drafting.commit(kept, done.tokens, counts)
        flags = torch.stack([finite, self.drafting.sound if self.drafting else finite]).expand(rows, 2)
        report = torch.cat([counts.unsqueeze(1), done.tokens, flags], dim=1).tolist()
        # Asked for together: the device is waited for once.
        self._check("the target", bool(report[0][-2]))
        self._check("the drafter", bool(report[0][-1]))
        self._counts = [line[0] for line in report]
        self.lengths = [old + count for old, count in zip(self.lengths, self._counts, strict=True)]
        return [line[1 : 1 + line[0]] for line in report]

    def release(self, row: int) -> None:
        """End a row: the last row in use takes its place."""
        source = len(self.lengths) - 1
        if source != row:
            self.cache.move(source, row, self.lengths[source])
            for state in (
                self._length,
                self._root,
                self._answered,
                self._numbers,
                self._temperature,
                self._expected,
            ):
                state[row] = state[source]
            if self.drafting:
                self.drafting.move(source, row, self.lengths[source])
        self.lengths[row], self._counts[row] = self.lengths[source], self._counts[source]
        self._is_expected[row] = self._is_expected[source]
        for values in (self.lengths, self._counts, self._is_expected):
            values.pop()

    def _check(self, model: str, sound: bool) -> None:
        """Numbers that are not finite would be taken for tokens."""
        if not sound:
            raise CheckpointError(
                f"{model} computes numbers that are not finite in {str(self.dtype).removeprefix('torch.')}",
                "weights are damaged, or exceed this dtype: bfloat16 and float32 have a larger range than float16",
            )

    def _verify_all(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified:
        """What the target commits, its hidden states at every node [n, v, H], and the captured ones."""
        rows, count = tree.tokens.shape
        nodes = torch.where(visible(tree.parents, self.depth), 0.0, HIDDEN).to(self.dtype)
        mask = torch.cat([prefix.expand(rows, count, prefix.shape[-1]), nodes], dim=-1).unsqueeze(1)
        attend = self.cache.tentative(rows, prefix.shape[-1], mask)
        hidden, captured = self.target(tree.tokens, length.unsqueeze(1) + tree.depths, attend, self.capture)
        return walk(tree, self.depth, self._sampler(tree, hidden, answered)), hidden, captured

    def _verify_expected(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified | None:
        """The same for the nodes along the expected texts alone; None where those are not known or turn out wrong."""
        if not all(self._is_expected) or tree.tokens.shape[1] == 1:
            return None
        places = answered.unsqueeze(1) + torch.arange(self.depth + 1, device=self.device)
        part = along(tree, self.depth, self._expected[: len(answered)].gather(1, places))
        verified = self._verify_all(part.tree, length, answered, prefix)
        return None if left_out(tree, part, verified[0]) else verified

    def _verify_step_by_step(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified:
        """The same where a draft that the target refuses is beyond the dtype's range: no node is computed but those
        that the target goes to, a level more in each pass. What overflowed would spoil all, since masked attention
        multiplies it by 0."""
        rows, depth = len(answered), self.depth
        self.cache.wipe(rows, prefix.shape[-1], tree.tokens.shape[1])
        expected = torch.full((rows, depth + 1), UNKNOWN, device=self.device)
        while True:
            part = along(tree, depth, expected)
            verified = self._verify_all(part.tree, length, answered, prefix)
            if not left_out(tree, part, verified[0]):
                return verified
            written = torch.arange(depth + 1, device=self.device) <= verified[0].accepted.unsqueeze(1)
            expected = torch.where(written, verified[0].tokens, UNKNOWN)

    def _sampler(self, tree: DraftTree, hidden: Tensor, answered: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The target's token at (node [n], level) [n]."""
        rows = len(answered)
        every = torch.arange(rows, device=self.device)
        numbers, temperature = self._numbers[:rows], self._temperature[:rows]
        if self.sample_at_once:
            at = numbers.gather(1, answered.unsqueeze(1) + tree.depths)
            tokens = choose(self.target.head(hidden), at, temperature.unsqueeze(1).expand_as(at))
            return lambda node, level: tokens[every, node]

        def sample(node: Tensor, level: int) -> Tensor:
            logits = self.target.head(hidden[every, node])
            return choose(logits, numbers[every, answered + level], temperature)

        return sample


def target_slots(shape: TreeShape | None, window: int) -> int:
    """Slots a row of the target's cache needs: what is committed, and a tree or the padded path through it."""
    return window + (max(shape.verified, shape.steps + 1) if shape else 1)


def row_bytes(target: Llama, drafter: Drafter | None, shape: TreeShape | None, window: int, dtype: torch.dtype) -> int:
    """Memory of one row's keys and values, in bytes."""
    config = target.config
    size = KVCache.row_bytes(
        config.num_hidden_layers, config.num_key_value_heads, target_slots(shape, window), config.head_dim, dtype
    )
    if drafter and shape:
        layer, slots = drafter.config.layer, Drafting.slots(shape, window)
        size += KVCache.row_bytes(drafter.kv_layers, layer.num_key_value_heads, slots, layer.head_dim, dtype)
    return size
