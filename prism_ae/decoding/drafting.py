"""Running a drafter over a batch: its KV cache, the tokens it has not read yet, and the steps that draft the trees.

Alignment (ARCHITECTURE.md): the input at position t is (embedding of token t+1, hidden t). With n tokens committed and
read by the target, x_0 .. x_{n-1}, and the root x_n just sampled, step 0 reads every position up to n - 1 that it has
not read yet (one per token of the last round) and writes its keys and values for good; its output at n - 1 scores the
root's children. Step j reads the beam's tokens at depth j at position n - 1 + j, with the output of their parents; its
keys and values are tentative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding.cache import HIDDEN, KVCache
from prism_ae.decoding.tree import Candidates, DraftTree, best_first
from prism_ae.drafters.model import Drafter


class Drafting:
    """A drafter's side of a batch.

    Args:
        drafter: with its weights in place.
        shape: of the draft trees.
        rows: sequences at once.
        max_seq_len: most committed tokens per row.
    """

    def __init__(self, drafter: Drafter, shape: TreeShape, rows: int, max_seq_len: int) -> None:
        layer = drafter.config.layer
        parameter = next(drafter.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.drafter, self.shape = drafter, shape
        self.cache = KVCache(
            drafter.kv_layers,
            rows,
            layer.num_key_value_heads,
            self.slots(shape, max_seq_len),
            layer.head_dim,
            like=parameter.detach(),
        )
        width = max(1, len(drafter.config.aux_hidden_layers)) * layer.hidden_size
        self.unread = torch.zeros(rows, shape.steps + 1, width, dtype=self.dtype, device=self.device)
        """Target hidden states that step 0 has not read yet [rows, d + 1, features], first ``counts`` of each row."""
        self.following = torch.zeros(rows, shape.steps + 1, dtype=torch.long, device=self.device)
        """The token after each of them [rows, d + 1]."""
        self.counts = torch.ones(rows, dtype=torch.long, device=self.device)
        self.sound = torch.ones((), dtype=torch.bool, device=self.device)
        """Whether all scores of the last `draft_tree` are finite."""
        self._own = torch.full((shape.branch, shape.branch), HIDDEN, dtype=self.dtype, device=self.device)
        self._own.fill_diagonal_(0)

    @staticmethod
    def slots(shape: TreeShape, max_seq_len: int) -> int:
        """Slots per row: the committed tokens, and the larger of a padded step 0 and the tentative beams."""
        return max_seq_len + max(shape.steps + 1, shape.branch * (shape.steps - 1))

    def prefill(self, first: int, prompts: Tensor, features: Tensor, last: Tensor, roots: Tensor) -> None:
        """Read the prompts of new rows, all but their last position, which the first round reads with the root.

        Args:
            first: the first of the rows.
            prompts: token ids [m, T], padded at the end.
            features: the target's hidden states [m, T, features].
            last: the last position of each prompt [m].
            roots: the token sampled after each prompt [m].
        """
        count, length = prompts.shape
        if length > 1:
            positions = torch.arange(length - 1, device=self.device).unsqueeze(0)
            embedding, hidden = self.drafter.embed(prompts[:, 1:]), self.drafter.project_hidden(features[:, :-1])
            self.drafter.step(0, embedding, hidden, self.drafter.rotary(positions), self.cache.prefill(first, count))
        new = slice(first, first + count)
        self.unread[new, 0] = features[torch.arange(count, device=self.device), last]
        self.following[new, 0] = roots
        self.counts[new] = 1

    def commit(self, features: Tensor, tokens: Tensor, counts: Tensor) -> None:
        """Take what the last round committed.

        Args:
            features: the target's hidden states at the committed nodes [n, d + 1, features].
            tokens: the token after each of them [n, d + 1].
            counts: how many of them each row committed [n].
        """
        rows = len(tokens)
        self.unread[:rows], self.following[:rows], self.counts[:rows] = features, tokens, counts

    def move(self, source: int, target: int, length: int) -> None:
        """Copy row ``source``, of ``length`` slots, over row ``target``."""
        self.cache.move(source, target, length)
        for state in (self.unread, self.following, self.counts):
            state[target] = state[source]

    def draft_tree(self, roots: Tensor, length: Tensor, counts: Sequence[int], prefix: Tensor) -> DraftTree:
        """Draft the trees of a round.

        Args:
            roots: last committed token of each row [n].
            length: committed tokens before the root [n].
            counts: ``self.counts`` of these rows, on the host.
            prefix: additive mask of the committed slots [n, 1, the longest row's length].
        """
        steps, branch = self.shape.steps, self.shape.branch
        rows, longest = len(roots), prefix.shape[-1]
        self.sound = torch.ones_like(self.sound)
        out = self._read(length, counts, longest)
        scores, tokens = (level[:, 0] for level in self._propose(out))
        numbers = torch.arange(branch, device=self.device).expand(rows, branch)
        candidates = Candidates()
        candidates.add(tokens, scores, torch.full_like(tokens, -1))
        hidden = out.expand(rows, branch, out.shape[-1])
        seen = self._own.expand(rows, branch, branch)
        for step in range(1, steps):
            mask = torch.cat([prefix.expand(rows, branch, longest), seen], dim=-1).unsqueeze(1)
            attend = self.cache.write_draft(rows, longest + (step - 1) * branch, mask)
            rotation = self.drafter.rotary((length + (step - 1)).unsqueeze(1))
            out = self.drafter.step(step, self.drafter.embed(tokens), hidden, rotation, attend)
            gains, drafted = self._propose(out)
            sums, drafted = (scores.unsqueeze(2) + gains).flatten(1), drafted.flatten(1)
            base = len(candidates)
            candidates.add(drafted, sums, numbers.repeat_interleave(branch, dim=1))
            if step == steps - 1:
                break
            best = best_first(sums, branch)
            parents = best // branch
            numbers, scores, tokens = base + best, sums.gather(1, best), drafted.gather(1, best)
            hidden = out.gather(1, parents.unsqueeze(2).expand_as(out))
            inherited = seen.gather(1, parents.unsqueeze(2).expand_as(seen))
            seen = torch.cat([inherited, self._own.expand(rows, branch, branch)], dim=-1)
        return candidates.best(roots, self.shape.verified - 1)

    def _read(self, length: Tensor, counts: Sequence[int], longest: int) -> Tensor:
        """Step 0 over the unread positions; its output at each row's last position [n, 1, H]."""
        rows, most = len(counts), max(counts)
        # Rows with fewer unread positions are padded behind their end, into slots that the next round overwrites before
        # anything reads them.
        positions = (length - self.counts[:rows]).unsqueeze(1) + torch.arange(most, device=self.device)
        seen = torch.arange(longest, device=self.device) <= positions.unsqueeze(2)
        mask = torch.where(seen, 0.0, HIDDEN).to(self.dtype).unsqueeze(1)
        embedding = self.drafter.embed(self.following[:rows, :most])
        hidden = self.drafter.project_hidden(self.unread[:rows, :most])
        attend = self.cache.scatter_write(positions, longest, mask)
        out = self.drafter.step(0, embedding, hidden, self.drafter.rotary(positions), attend)
        last = (self.counts[:rows] - 1)[:, None, None].expand(rows, 1, out.shape[-1])
        return out.gather(1, last)

    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The w likeliest next tokens of each node: log-probabilities (fp32) and target ids, both [n, nodes, w]."""
        logits = self.drafter.logits(hidden).float()
        top = logits.topk(self.shape.branch, dim=-1)
        gains = top.values - logits.logsumexp(dim=-1, keepdim=True)
        self.sound = self.sound & torch.isfinite(gains).all()
        # At most 0 by definition; rounding must not lift a child above its parent.
        return gains.clamp_(max=0.0), self.drafter.token_ids(top.indices)
