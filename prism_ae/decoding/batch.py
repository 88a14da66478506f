"""A batch of sequences on the device: prompts in, rounds of draft, verify and commit, rows out.

All work per token happens here in tensors over all rows in use; once a round the host learns which tokens were
accepted. Vanilla decoding is the same round with a tree of the root alone: one token per round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding.cache import KVCache
from prism_ae.decoding.drafting import Drafting
from prism_ae.decoding.examine import SURE, examined
from prism_ae.decoding.known_text import UNKNOWN, known_path, leaves_path
from prism_ae.decoding.lookup import LookupDrafting, PromptLookup
from prism_ae.decoding.sampling import sample_tokens
from prism_ae.decoding.timers import DRAFT, SAMPLE, VERIFY, StageClock, stage_clock
from prism_ae.decoding.tree import DraftTree, root_only, visible
from prism_ae.decoding.verify import Walk, walk
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Attend, Llama

_Verified = tuple[Walk, Tensor, Tensor | None]


class Batch:
    """Rows that decode together; the rows in use are the first ``len(lengths)``.

    Args:
        target: in evaluation mode.
        drafter: with its tree's shape, or None for both.
        rows: most sequences.
        max_seq_len: most tokens of prompt and answer together, at most the target's positions. A drafter may have
            fewer: then it drafts at positions that it was not trained on, and never ends an answer.
        uniforms_per_row: uniform numbers per row that `admit` is given: the longest answer plus the tree's depth + 1.
    """

    def __init__(
        self,
        target: Llama,
        drafter: Drafter | PromptLookup | None,
        shape: TreeShape | None,
        *,
        rows: int,
        max_seq_len: int,
        uniforms_per_row: int,
    ) -> None:
        if (drafter is None) != (shape is None):
            raise ValueError("a drafter needs the shape of its trees, and a shape a drafter")
        if max_seq_len > target.config.max_position_embeddings:
            raise ValueError(f"max_seq_len {max_seq_len} is beyond the target's positions")
        for model in (target, drafter):
            # Drafts may lie beyond max_seq_len: they are verified, and never committed.
            if isinstance(model, (Llama, Drafter)):
                model.rotary.reserve(max_seq_len + (shape.steps if shape else 0))
        config, parameter = target.config, next(target.parameters())
        self.target, self.device, self.dtype = target, parameter.device, parameter.dtype
        self.rows, self.uniforms_per_row = rows, uniforms_per_row
        self.depth = shape.steps if shape else 0
        self.aux_hidden_layers = drafter.config.aux_hidden_layers if isinstance(drafter, Drafter) else ()
        self.sample_at_once = self.device.type != "cpu"
        """Whether the target's token is computed for all nodes at once, or for visited nodes only. The latter saves a
        CPU most nodes; on a GPU reading the head's weights once per level would cost more than the nodes."""
        self.cache = KVCache(
            config.num_hidden_layers,
            rows,
            config.num_key_value_heads,
            target_slots(shape, max_seq_len),
            config.head_dim,
            like=parameter.detach(),
        )
        self.drafting: Drafting | LookupDrafting | None = None
        if isinstance(drafter, Drafter) and shape:
            self.drafting = Drafting(drafter, shape, rows, max_seq_len)
        elif isinstance(drafter, PromptLookup) and shape:
            self.drafting = LookupDrafting(drafter, shape, rows, max_seq_len, device=self.device)
        self.clock = StageClock()
        """Of the rounds, and of the host between them: whoever drives the batch pauses it for anything else."""
        self.stages_are_timed = False
        """Whether the clock tells the stages of a round apart: `time_stages`. Their sum is right without it."""
        self.verdicts: list[list[int]] | None = None
        """Of the tokens that the last `admit` or `round` returned, row by row; None without `examine_tokens`."""
        self._visited: Callable[[Tensor], Tensor]
        """Nodes of the last walk [n, d + 1] -> the target's logits there, as it saw them [n, at most d + 1, V]."""
        self.lengths: list[int] = []
        """Committed tokens that the target has read, of each row in use: all but the root."""
        self._counts: list[int] = []
        self._length = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._root = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._answered = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._uniforms = torch.zeros(rows, uniforms_per_row, dtype=torch.float64, device=self.device)
        self._temperature = torch.zeros(rows, dtype=torch.float64, device=self.device)
        self._known = torch.full((rows, uniforms_per_row), UNKNOWN, device=self.device)
        self._is_known: list[bool] = []
        self._is_greedy: list[bool] = []
        self._numbers = torch.arange(max(rows, target_slots(shape, max_seq_len)), device=self.device)

    def examine_tokens(self) -> None:
        """From now on look at every committed token again, for half precision (`prism_ae.decoding.examine`)."""
        self.verdicts = []

    def time_stages(self) -> None:
        """From now on tell the stages of a round apart, by `clock`."""
        self.clock, self.stages_are_timed = stage_clock(self.device), True

    @torch.inference_mode()
    def admit(
        self,
        prompts: Sequence[Sequence[int]],
        uniforms: Sequence[NDArray[np.float64]],
        temperatures: Sequence[float],
        known_texts: Sequence[Sequence[int]] | None = None,
    ) -> list[int]:
        """Read prompts into free rows, after those in use; returns the first token of each answer.

        Args:
            prompts: token ids, at least one each.
            uniforms: uniform numbers of each answer's positions, fp64 [uniforms_per_row] each.
            temperatures: 0 is greedy.
            known_texts: the answers that the target will write, and its tokens beyond their end; empty where that is
                not known. See `prism_ae.decoding.known_text`.
        """
        first, count = len(self.lengths), len(prompts)
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.zeros(count, max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        ids = ids.to(self.device)
        new, every = slice(first, first + count), self._numbers[:count]
        self._length[new] = torch.tensor(lengths, device=self.device)
        self._uniforms[new] = torch.from_numpy(np.stack(uniforms)).to(self.device)
        self._temperature[new] = torch.tensor(temperatures, dtype=torch.float64, device=self.device)
        self._answered[new] = 1
        for row, text in enumerate(known_texts or [()] * count, start=first):
            known = torch.tensor(text[: self.uniforms_per_row], dtype=torch.long)
            self._known[row] = UNKNOWN
            self._known[row, : len(known)] = known.to(self.device)
            self._is_known.append(len(known) > 0)
        positions = self._numbers[: max(lengths)].unsqueeze(0)
        self._is_greedy += [temperature == 0 for temperature in temperatures]
        hidden, aux_hidden = self.target(ids, positions, self.cache.prefill(first, count), self.aux_hidden_layers)
        last = self._length[new] - 1
        logits = self.target.head(hidden[every, last])
        self._check("the target", sound=bool(torch.isfinite(logits).all()))
        roots = sample_tokens(logits, self._uniforms[new, 0], self._warmth(new))
        self._root[new] = roots
        if self.drafting:
            self.drafting.prefill(first, ids, hidden if aux_hidden is None else aux_hidden, last, roots)
        if self.verdicts is not None:
            found = examined(logits, roots, self._uniforms[new, 0], self._temperature[new])
            self.verdicts = found.unsqueeze(1).tolist()
        self.lengths += lengths
        self._counts += [1] * count
        return roots.tolist()

    @torch.inference_mode()
    def round(self) -> list[list[int]]:
        """Draft, verify and commit, once for every row in use.

        Returns:
            Per row the tokens committed: the accepted drafts and the bonus token.

        Raises:
            CheckpointError: target or drafter compute non-finite numbers; `admit` raises it, too.
        """
        self.clock.begin_round()
        rows, longest = len(self.lengths), max(self.lengths)
        length, root, answered = self._length[:rows], self._root[:rows], self._answered[:rows]
        aligned = min(self.lengths) == longest
        if aligned:
            prefix = torch.zeros(rows, 1, longest, dtype=self.dtype, device=self.device)
        else:
            prefix = self.cache.mask(self._numbers[:longest] < length.unsqueeze(1)).unsqueeze(1)
        if self.drafting:
            tree = self.drafting.draft_tree(root, length, self._counts, prefix)
            self.clock.lap(DRAFT)
        else:
            tree = root_only(root)
        done, hidden, aux_hidden = self._verify_known(tree, length, answered, prefix) or self._verify_all(
            tree, length, answered, prefix
        )
        finite = torch.isfinite(hidden).all()
        if self.dtype == torch.float16 and not bool(finite):
            done, hidden, aux_hidden = self._verify_step_by_step(tree, length, answered, prefix)
            finite = torch.isfinite(hidden).all()
        found = self._examine(done, answered) if self.verdicts is not None else done.tokens[:, :0]
        if self.drafting:  # else each root is where it stays
            self.cache.commit(longest + done.nodes, length.unsqueeze(1) + self._numbers[: self.depth + 1])
        counts = done.accepted + 1
        self._root[:rows] = done.tokens.gather(1, done.accepted.unsqueeze(1)).squeeze(1)
        self._length[:rows] += counts
        self._answered[:rows] += counts
        if self.drafting:
            features = hidden if aux_hidden is None else aux_hidden
            kept = features.gather(1, done.nodes.unsqueeze(2).expand(-1, -1, features.shape[-1]))
            self.drafting.commit(kept, done.tokens, counts)
        flags = torch.stack([finite, self.drafting.sound if self.drafting else finite]).expand(rows, 2)
        report = torch.cat([counts.unsqueeze(1), done.tokens, found, flags], dim=1).tolist()
        # In one report, so that the host waits for the device once.
        self._check("the target", sound=bool(report[0][-2]))
        self._check("the drafter", sound=bool(report[0][-1]))
        self._counts = [line[0] for line in report]
        self.lengths = [old + count for old, count in zip(self.lengths, self._counts, strict=True)]
        if self.verdicts is not None:
            begin = 1 + done.tokens.shape[1]
            self.verdicts = [line[begin : begin + line[0]] for line in report]
        self.clock.end_round()
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
                self._uniforms,
                self._temperature,
                self._known,
            ):
                state[row] = state[source]
            if self.drafting:
                self.drafting.move(source, row, self.lengths[source])
        self.lengths[row], self._counts[row] = self.lengths[source], self._counts[source]
        self._is_known[row] = self._is_known[source]
        self._is_greedy[row] = self._is_greedy[source]
        for values in (self.lengths, self._counts, self._is_known, self._is_greedy):
            values.pop()

    def _check(self, model: str, *, sound: bool) -> None:
        """Raise CheckpointError: non-finite numbers would be taken for tokens."""
        if not sound:
            raise CheckpointError(
                f"{model} computes numbers that are not finite in {str(self.dtype).removeprefix('torch.')}",
                "weights are damaged, or exceed this dtype: bfloat16 and float32 have a larger range than float16",
            )

    def _verify_all(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified:
        """The target's walk, its hidden states at every node [n, v, H], and the auxiliary ones [n, v, features]."""
        attend = self._attend(tree, length, prefix)
        positions = length.unsqueeze(1) + tree.depths
        hidden, aux_hidden = self.target(tree.tokens, positions, attend, self.aux_hidden_layers)
        self.clock.lap(VERIFY)
        return walk(tree, self.depth, self._sampler(tree, hidden, answered)), hidden, aux_hidden

    def _attend(self, tree: DraftTree, length: Tensor, prefix: Tensor) -> Attend:
        """Attention of the tree's nodes over the committed text and their own ancestors."""
        rows, count = tree.tokens.shape
        width = prefix.shape[-1]
        if not self.drafting and min(self.lengths) < width:
            # Nothing here is tentative: each root is written where it stays.
            seen = self._numbers[: width + 1] <= length.unsqueeze(1)
            return self.cache.scatter_write(length.unsqueeze(1), width + 1, self.cache.mask(seen)[:, None, None])
        nodes = self.cache.mask(visible(tree.parents, self.depth)) if count > 1 else prefix.new_zeros(rows, 1, 1)
        mask = torch.cat([prefix.expand(rows, count, width), nodes], dim=-1).unsqueeze(1)
        return self.cache.write_slice(rows, width, mask)

    def _verify_known(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified | None:
        """The same for the nodes along the known texts alone; None where a text is unknown or turns out wrong."""
        if not all(self._is_known) or tree.tokens.shape[1] == 1:
            return None
        places = answered.unsqueeze(1) + self._numbers[: self.depth + 1]
        path = known_path(tree, self.depth, self._known[: len(answered)].gather(1, places))
        verified = self._verify_all(path.tree, length, answered, prefix)
        return None if leaves_path(tree, path, verified[0]) else verified

    def _verify_step_by_step(self, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> _Verified:
        """The same where a rejected draft overflows the dtype: only nodes that the target visits are computed, one
        level more in each pass. An overflow would spoil them all: masked attention multiplies it by 0."""
        rows, depth = len(answered), self.depth
        self.cache.wipe(rows, prefix.shape[-1], tree.tokens.shape[1])
        text = torch.full((rows, depth + 1), UNKNOWN, device=self.device)
        while True:
            path = known_path(tree, depth, text)
            verified = self._verify_all(path.tree, length, answered, prefix)
            if not leaves_path(tree, path, verified[0]):
                return verified
            written = self._numbers[: depth + 1] <= verified[0].accepted.unsqueeze(1)
            text = torch.where(written, verified[0].tokens, UNKNOWN)

    def _examine(self, done: Walk, answered: Tensor) -> Tensor:
        """A verdict for each token of ``done`` [n, d + 1], from the logits that the verifier saw."""
        logits = self._visited(done.nodes)
        rows, levels = logits.shape[:2]
        places = self._numbers[:levels].expand(rows, levels)
        committed = places <= done.accepted.unsqueeze(1)
        uniforms = self._uniforms[:rows].gather(1, answered.unsqueeze(1) + places)
        temperature = self._temperature[:rows].unsqueeze(1).expand(rows, levels)
        found = torch.full_like(done.tokens, SURE)
        found[:, :levels][committed] = examined(
            logits[committed], done.tokens[:, :levels][committed], uniforms[committed], temperature[committed]
        )
        return found

    def _sampler(self, tree: DraftTree, hidden: Tensor, answered: Tensor) -> Callable[[Tensor, int], Tensor]:
        """(node [n], level) -> the target's token there [n]."""
        rows = len(answered)
        every, uniforms, temperature = self._numbers[:rows], self._uniforms[:rows], self._warmth(slice(rows))
        if self.sample_at_once:
            at = uniforms.gather(1, answered.unsqueeze(1) + tree.depths)
            every_node = self.target.head(hidden)
            self.clock.lap(VERIFY)
            self._visited = lambda nodes: every_node[every.unsqueeze(1), nodes]
            each = None if temperature is None else temperature.unsqueeze(1).expand_as(at)
            tokens = sample_tokens(every_node, at, each)
            return lambda node, level: tokens[every, node]

        levels: list[Tensor] = []
        self._visited = lambda nodes: torch.stack(levels, dim=1)
        at_level = uniforms.gather(1, answered.unsqueeze(1) + self._numbers[: self.depth + 1]).unbind(1)

        def sample(node: Tensor, level: int) -> Tensor:
            self.clock.lap(SAMPLE)
            logits = self.target.head(hidden[every, node] if level else hidden[:, 0])
            self.clock.lap(VERIFY)
            if self.verdicts is not None:
                levels.append(logits)
            return sample_tokens(logits, at_level[level], temperature)

        return sample

    def _warmth(self, rows: slice) -> Tensor | None:
        """Temperatures of rows [n], or None where all of them are greedy."""
        return None if all(self._is_greedy[rows]) else self._temperature[rows]


def target_slots(shape: TreeShape | None, max_seq_len: int) -> int:
    """Slots per row of the target's cache: the committed tokens, and a tree or the padded path through it."""
    return max_seq_len + (max(shape.verified, shape.steps + 1) if shape else 1)


def row_bytes(
    target: Llama, drafter: Drafter | PromptLookup | None, shape: TreeShape | None, max_seq_len: int, dtype: torch.dtype
) -> int:
    """Memory of one row's keys and values, in bytes."""
    config = target.config
    size = KVCache.row_bytes(
        config.num_hidden_layers, config.num_key_value_heads, target_slots(shape, max_seq_len), config.head_dim, dtype
    )
    if isinstance(drafter, Drafter) and shape:
        layer, slots = drafter.config.layer, Drafting.slots(shape, max_seq_len)
        size += KVCache.row_bytes(drafter.kv_layers, layer.num_key_value_heads, slots, layer.head_dim, dtype)
    return size
