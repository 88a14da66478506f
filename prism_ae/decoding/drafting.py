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
from prism_ae.decoding.tree import DraftTree, TreeChoice, best_first
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
        own = torch.full((shape.branch, shape.branch), HIDDEN, dtype=self.dtype, device=self.device)
        self._own = own.fill_diagonal_(0).repeat(1, shape.steps - 1)
        """What a beam sees of each step's beam, were all its ancestors in its own place [w, (d - 1) w]."""
        self._beam_steps = torch.arange(shape.steps - 1, device=self.device).repeat_interleave(shape.branch)
        """Of each node of all beams, how far it is behind the root's position less one [(d - 1) w]."""
        self._choice = TreeChoice(shape, self.device)
        self._numbers = torch.arange(max(self.slots(shape, max_seq_len), shape.branch) + 1, device=self.device)

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
        out = self._read(length, counts, longest)
        scores, tokens = (level[:, 0] for level in self._propose(out))
        root = torch.zeros_like(roots).unsqueeze(1)
        all_tokens, all_scores = [roots.unsqueeze(1), tokens], [torch.zeros_like(scores[:, :1]), scores]
        beams, beam = [root], self._numbers[1 : branch + 1].expand(rows, branch)
        hidden = out.expand(rows, branch, out.shape[-1])
        if steps > 1:
            own = self._own.expand(rows, *self._own.shape)
            mask = torch.cat([prefix.expand(rows, branch, longest), own], dim=-1).unsqueeze(1)
            rotation = self.drafter.rotary(length.unsqueeze(1) + self._beam_steps)
            rotations = list(zip(*(part.split(branch, dim=2) for part in rotation), strict=True))
        for step in range(1, steps):
            begin = longest + (step - 1) * branch
            attend = self.cache.write_slice(rows, begin, mask[..., : begin + branch])
            out = self.drafter.step(step, self.drafter.embed(tokens), hidden, rotations[step - 1], attend)
            gains, drafted = self._propose(out)
            sums, drafted = (scores.unsqueeze(2) + gains).flatten(1), drafted.flatten(1)
            beams.append(beam)
            all_tokens.append(drafted)
            all_scores.append(sums)
            if step == steps - 1:
                break
            scores, best = best_first(sums, branch)
            tokens, parents = drafted.gather(1, best), (best // branch).unsqueeze(2)
            beam = best + (1 + branch + (step - 1) * branch**2)
            hidden = out.gather(1, parents.expand_as(out))
            seen = mask[:, 0, :, longest : begin + branch]
            seen.copy_(seen.gather(1, parents.expand_as(seen)))
        tree, every = self._choice.best(all_tokens, all_scores, beams)
        # A score that is no number makes those of all its descendants none.
        self.sound = torch.isfinite(every).all()
        return tree

    def _read(self, length: Tensor, counts: Sequence[int], longest: int) -> Tensor:
        """Step 0 over the unread positions; its output at each row's last position [n, 1, H]."""
        rows, most = len(counts), max(counts)
        # Rows with fewer unread positions are padded behind their end, into slots that the next round overwrites before
        # anything reads them.
        positions = (length - self.counts[:rows]).unsqueeze(1) + self._numbers[:most]
        mask = self.cache.mask(self._numbers[:longest] <= positions.unsqueeze(2)).unsqueeze(1)
        embedding = self.drafter.embed(self.following[:rows, :most])
        hidden = self.drafter.project_hidden(self.unread[:rows, :most])
        attend = (
            self.cache.write_slice(rows, longest - most, mask)
            if rows == 1  # its slots are one slice
            else self.cache.scatter_write(positions, longest, mask)
        )
        out = self.drafter.step(0, embedding, hidden, self.drafter.rotary(positions), attend)
        if min(counts) == most:
            return out[:, -1:]
        last = (self.counts[:rows] - 1)[:, None, None].expand(rows, 1, out.shape[-1])
        return out.gather(1, last)

    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The w likeliest next tokens of each node: log-probabilities (fp32) and target ids, both [n, nodes, w]."""
        logits = self.drafter.logits(hidden).float()
        top = logits.topk(self.shape.branch, dim=-1)
        gains = top.values - logits.logsumexp(dim=-1, keepdim=True)
        # At most 0 by definition; rounding must not lift a child above its parent.
        return gains.clamp_(max=0.0), self.drafter.token_ids(top.indices)
