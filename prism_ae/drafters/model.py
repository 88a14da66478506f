"""The draft cell and its compositions: EAGLE-2, HASS, HASS-2/3, PRISM, PRISM*, PRISM-3, EAGLE-3.

A drafter guesses the target's next tokens from two inputs per position: the embedding of the *next* token (known:
it was just sampled) and a hidden state of the position before it. The input at position t is (embedding of token
t+1, hidden t); its output is a guess of hidden t+1 and, through the head, of token t+2. Step 0 of a round reads the
target's own hidden states (`Drafter.project_hidden`); every later step reads the output of the step before it.

A *module* is one parameter set: a fusion layer 2H -> H and a stack of Llama layers, the first without input norm.
EAGLE-2 and HASS have one module and use it at every step; PRISM maps steps to modules, so its capacity grows while a
step still runs one module (PRISM, MLSys 2026, figure 3; step 0 -> module 0, later steps -> module 1).
Modules share one KV cache: module 1 attends to the keys and values that module 0 wrote.

EAGLE-3 is its own cell: the layer sees (embedding, hidden) side by side, and it brings a head over its own, smaller
vocabulary. Embedding and, for all but EAGLE-3, the head are the target's, shared and frozen. Of a small target with a
large vocabulary the head is most of what a draft step reads, so the other cell, too, may draft among some tokens only:
then it reads their rows of the target's head (FR-Spec, Zhao et al. 2025, as SGLang's --speculative-token-map).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_ae.drafters.config import DrafterConfig
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import (
    MLP,
    Attend,
    Attention,
    DecoderLayer,
    LeanModule,
    Linear,
    Llama,
    RMSNorm,
    Rotary,
    Rotation,
)


class EagleModule(LeanModule):
    """One parameter set: fusion 2H -> H with bias, then the layers; the first has no input norm."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.fusion = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, input_norm=number > 0) for number in range(config.num_hidden_layers)
        )

    def fuse(self, embedding: Tensor, hidden: Tensor) -> Tensor:
        """Embedding of the next token and hidden state, [B, T, H] each -> the first layer's input [B, T, H]."""
        return self.fusion(torch.cat([embedding, hidden], dim=-1))

    def forward(self, embedding: Tensor, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """See `Drafter.step`."""
        x = self.fuse(embedding, hidden).flatten(0, 1)
        for number, layer in enumerate(self.layers):
            x = layer(x, rotation, attend, number)
        return x.view_as(hidden)


class Eagle3Module(LeanModule):
    """EAGLE-3's layer: attention reads (normed embedding, normed hidden), the residual is the hidden state."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.embedding_norm = RMSNorm(size, eps)
        self.hidden_norm = RMSNorm(size, eps)
        self.attention = Attention(config, 2 * size)
        self.mlp_norm = RMSNorm(size, eps)
        self.mlp = MLP(config)

    def forward(self, embedding: Tensor, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """See `Drafter.step`."""
        mixed = torch.cat([self.embedding_norm(embedding), self.hidden_norm(hidden)], dim=-1)
        x = hidden + self.attention(mixed, rotation, attend, 0)
        return x + self.mlp(self.mlp_norm(x))


class Drafter(nn.Module):
    """A drafter bound to the embedding and head of a target that it fits (`layouts.read.check_target`).

    The target's parameters are used, never registered: ``parameters()`` are the drafter's own.
    """

    draft_ids: Tensor
    """Target token id of each draft token id [draft_vocab]; empty for a drafter that drafts among all of them."""

    def __init__(self, config: DrafterConfig, target: Llama) -> None:
        super().__init__()
        layer = config.layer
        self.config = config
        self._shared = (target.embedding, target.head)
        size, read = layer.hidden_size, len(config.aux_hidden_layers)
        if config.cell == "eagle":
            self.modules_ = nn.ModuleList(EagleModule(layer) for _ in range(config.modules))
            self.hidden_proj = nn.Linear(read * size, size) if read else nn.Identity()
            self.norm: nn.Module = nn.Identity()
            self.own_head: Linear | None = None
        else:
            assert config.draft_vocab_size is not None
            self.modules_ = nn.ModuleList([Eagle3Module(layer)])
            self.hidden_proj = Linear(read * size, size)
            self.norm = RMSNorm(size, layer.rms_norm_eps)
            self.own_head = Linear(size, config.draft_vocab_size)
        self.register_buffer("draft_ids", torch.arange(config.draft_vocab_size or 0))
        self._rows: _HeadRows | None = None
        self.rotary = Rotary(layer)

    @property
    def kv_layers(self) -> int:
        """Layers of the KV cache that a round needs; modules share them."""
        return self.config.layer.num_hidden_layers

    def embed(self, ids: Tensor) -> Tensor:
        """Target embedding of ``ids`` [B, T] -> [B, T, H]."""
        return self._shared[0](ids)

    def project_hidden(self, features: Tensor) -> Tensor:
        """The target's hidden states [B, T, H], or n auxiliary ones [B, T, n * H], -> hidden of step 0 [B, T, H]."""
        return self.hidden_proj(features)

    def step(self, step: int, embedding: Tensor, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """Run draft step ``step``.

        Args:
            step: from 0; chooses the module.
            embedding: of token t+1 at position t [B, T, H].
            hidden: at step 0 the result of `project_hidden`, later the previous step's output [B, T, H].
            rotation: ``self.rotary`` of the positions t [B, T].
            attend: owner of keys, values and mask, `kv_layers` layers.

        Returns:
            Hidden states [B, T, H]: input of the next step, and of `logits`.
        """
        return self.modules_[self.config.module_of(step)](embedding, hidden, rotation, attend)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of token t+2 over the draft vocabulary [..., V or draft_vocab]; no final norm except EAGLE-3's."""
        if self.own_head is not None:
            return self.own_head(self.norm(hidden))
        if self.config.draft_vocab_size is None:
            return self._shared[1](hidden)
        return F.linear(hidden, self.head_rows())

    def head_rows(self) -> Tensor:
        """The target's head at the draft vocabulary's tokens [draft_vocab, H], in its dtype, on its device.

        Gathered once, and again when the ids or the head have changed. For a cell that has no head of its own.
        """
        weight = self._shared[1].weight
        if self._rows is None or not self._rows.current(self.draft_ids, weight):
            self._rows = _HeadRows(self.draft_ids, weight)
        return self._rows.rows

    def token_ids(self, draft_tokens: Tensor) -> Tensor:
        """Target token ids of draft vocabulary indices, of the same shape; without such a vocabulary the same."""
        return draft_tokens if self.config.draft_vocab_size is None else self.draft_ids[draft_tokens]


class _HeadRows:
    """Rows of a head, and of which ids and weights they are."""

    def __init__(self, ids: Tensor, weight: Tensor) -> None:
        self._ids, self._of = ids, _state(ids, weight)
        # Ordinary tensors, whatever mode they are first asked for in: training may follow an evaluation.
        with torch.inference_mode(mode=False), torch.no_grad():
            self.rows = weight.detach()[ids.to(weight.device)].clone()

    def current(self, ids: Tensor, weight: Tensor) -> bool:
        """Whether these are still the rows of ``ids`` in ``weight``."""
        return self._ids is ids and self._of == _state(ids, weight)


def _state(ids: Tensor, weight: Tensor) -> tuple[object, ...]:
    """What changes when a tensor is written to, moved, cast or replaced; one made for inference counts no writes."""
    writes = [0 if tensor.is_inference() else tensor._version for tensor in (ids, weight)]
    return (*writes, ids.data_ptr(), weight.data_ptr(), weight.dtype, weight.device)
