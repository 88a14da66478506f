"""The draft models as SGLang runs them: its own layers, PRISM's composition, and a strict loading of checkpoints.

Imported by SGLang's scheduler alone. The arithmetic is that of `prism_ae.drafters.model`, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from sglang.srt.distributed import get_pp_group
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.models.llama import LlamaForCausalLM
from sglang.srt.models.llama_eagle import LlamaDecoderLayer
from sglang.srt.models.llama_eagle3 import LlamaForCausalLMEagle3
from torch import Tensor, nn

from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.records import DRAFT_IDS, TargetSizes
from prism_ae.sglang_prism.description import KEY
from prism_ae.sglang_prism.steps import draft_step

_SHARDS: dict[str, tuple[str, str | int]] = {
    "q_proj": ("qkv_proj", "q"),
    "k_proj": ("qkv_proj", "k"),
    "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}
"""Stored projection -> SGLang's fused one, and which part of it."""


class DraftModule(nn.Module):
    """One parameter set: the fusion layer, then the Llama layers, the first without input norm.

    Every module numbers its layers from 0, so all of them share one KV cache: module 1 attends to the keys and values
    that module 0 wrote.
    """

    def __init__(self, config: Any, quant_config: Any) -> None:
        super().__init__()
        self.fusion = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(config, number, quant_config=quant_config) for number in range(config.num_hidden_layers)
        )

    def forward(self, embedding: Tensor, hidden: Tensor, positions: Tensor, forward_batch: Any) -> Tensor:
        """Embedding of the next token and hidden state [T, H] -> the next hidden state [T, H]."""
        x, residual = self.fusion(torch.cat([embedding, hidden], dim=-1)), None
        for layer in self.layers:
            x, residual = layer(positions, x, forward_batch, residual)
        return x + residual


class DraftBackbone(nn.Module):
    """The modules, the step mapping, and the projection of the target's auxiliary hidden states."""

    def __init__(self, config: Any, quant_config: Any) -> None:
        super().__init__()
        described = getattr(config, KEY)["config"]
        size = config.hidden_size
        with torch.device("meta"):  # the target's is put in its place: no memory for one of its own
            self.embed_tokens = VocabParallelEmbedding(config.vocab_size, size)
        self.modules_ = nn.ModuleList(DraftModule(config, quant_config) for _ in range(described["modules"]))
        self.step_mapping: list[int] = described["step_mapping"]
        read = len(described["capture"])
        self.hidden_proj = nn.Linear(read * size, size) if read else None

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        forward_batch: Any,
        input_embeds: Tensor | None = None,
        pp_proxy_tensors: Any = None,
    ) -> Tensor:
        """Token ids and positions [T], and the batch's hidden states -> hidden states [T, H]."""
        embedding = self.embed_tokens(input_ids) if input_embeds is None else input_embeds
        hidden = forward_batch.spec_info.hidden_states
        step = draft_step(forward_batch)
        if step == 0 and self.hidden_proj is not None:
            hidden = self.hidden_proj(hidden)
        module = self.modules_[self.step_mapping[min(step, len(self.step_mapping) - 1)]]
        return module(embedding, hidden, positions, forward_batch)


class PrismDraftModel(LlamaForCausalLM):
    """PRISM, PRISM*, EAGLE-2 and HASS with any number of modules and stacked layers.

    With a draft vocabulary its head is a copy of those rows of the target's: of one process, which has all of them.
    """

    hot_token_id: Tensor | None = None
    """Target token id of each draft token id; None until loaded, and for a drafter that drafts among all tokens."""

    load_lm_head_from_target = True
    """Read by SGLang in its branch for EAGLE-3: embedding and head are the target's."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        nn.Module.__init__(self)
        self.config, self.quant_config = config, quant_config
        self.pp_group = get_pp_group()
        self.model = DraftBackbone(config, quant_config)
        with torch.device("meta"):  # as the embedding
            self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        self.logits_processor = LogitsProcessor(config)
        self.capture_aux_hidden_states = False
        self._target_head: tuple[Tensor, ...] = ()  # a tuple: not among the drafter's own parameters

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load the described folder, strictly and once; SGLang's ``weights`` are not read.

        SGLang calls this again with the target's weights when those are updated while it runs, after the target: the
        drafter stays, with its rows of the new head.
        """
        if not hasattr(self, "prism_ae_folder"):
            self.load_drafter(Path(getattr(self.config, KEY)["drafter"]))
        self._gather()

    def set_embed_and_head(self, embed: Any, head: Any) -> None:
        """Take the target's embedding [V, H] and head, of which a draft vocabulary's rows are copied."""
        if self.hot_token_id is None:
            super().set_embed_and_head(embed, head)
            return
        self.hot_token_id = self.hot_token_id.to(head.device)
        rows = head.detach()[self.hot_token_id]
        super().set_embed_and_head(embed, nn.Parameter(rows, requires_grad=False))
        self._target_head = (head,)

    def _gather(self) -> None:
        """The rows of the target's head, again: in place, for captured graphs hold them."""
        if self.hot_token_id is not None and self._target_head:
            self.lm_head.weight.data.copy_(self._target_head[0].detach()[self.hot_token_id])

    def load_drafter(self, folder: Path) -> None:
        """Fill every parameter of the drafter from a folder, in place.

        Raises:
            PrismError: the folder is malformed or of another architecture; the drafter has not changed.
        """
        state = _read(folder, self.config)
        ids = state.pop(DRAFT_IDS, None)
        _fill({name: parameter for name, parameter in self.named_parameters() if _own(name)}, state, _eagle_name)
        self.prism_ae_folder = str(folder)
        if ids is not None:
            self.hot_token_id = _replaced(self.hot_token_id, ids)
            self._gather()


class PrismEagle3DraftModel(LlamaForCausalLMEagle3):
    """EAGLE-3 as SGLang has it, loaded strictly."""

    hot_token_id: Tensor | None
    """Target token id of each draft token id; None until loaded."""

    def __init__(self, config: Any, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        with torch.device("meta"):  # the target's is put in its place
            self.model.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `PrismDraftModel.load_weights`."""
        if not hasattr(self, "prism_ae_folder"):
            self.load_drafter(Path(getattr(self.config, KEY)["drafter"]))

    def load_drafter(self, folder: Path) -> None:
        """See `PrismDraftModel.load_drafter`."""
        state = _read(folder, self.config)
        ids = state.pop(DRAFT_IDS)
        own = {name: parameter for name, parameter in self.named_parameters() if name != "model.embed_tokens.weight"}
        _fill(own, state, _eagle3_name)
        self.prism_ae_folder = str(folder)
        self.hot_token_id = _replaced(self.hot_token_id, ids)


def _replaced(held: Tensor | None, ids: Tensor) -> Tensor:
    """Token ids in the place of those that are held, if any: the draft worker and captured graphs hold that tensor."""
    return ids.clone() if held is None else held.copy_(ids)


def _own(name: str) -> bool:
    return name not in ("model.embed_tokens.weight", "lm_head.weight")


def _read(folder: Path, config: Any) -> dict[str, Tensor]:
    """The drafter's tensors under the project's names; raises PrismError."""
    from prism_ae.errors import CheckpointError

    described = getattr(config, KEY)
    stored = read_drafter(folder, TargetSizes(**described["target"]), described["config"]["capture"])
    if stored.config.fields() != described["config"]:
        raise CheckpointError(f"{folder} is not of the architecture that is loaded", "start the engine with it")
    return stored.state


def _eagle_name(name: str) -> tuple[str, str | int | None]:
    """Stored name -> parameter of `PrismDraftModel`, and the part of a fused one."""
    first, rest = name.split(".", 1)
    name = f"model.{_EAGLE_NAMES[first]}.{rest}"
    for part, (fused, shard) in _SHARDS.items():
        if f".{part}." in name:
            return name.replace(part, fused), shard
    return name, None


_EAGLE_NAMES = {"modules": "modules_", "entry": "hidden_proj"}
"""First part of a stored name -> of a parameter of `DraftBackbone`."""


_EAGLE3_NAMES = {
    "modules.0.embedding_norm.": "model.layers.0.input_layernorm.",
    "modules.0.hidden_norm.": "model.layers.0.hidden_norm.",
    "modules.0.": "model.layers.0.",
    "entry.": "model.fc.",
    "norm.": "model.norm.",
    "head.": "lm_head.",
}
"""Beginning of a stored name -> of a parameter of SGLang's EAGLE-3; the first that fits."""


def _eagle3_name(name: str) -> tuple[str, str | int | None]:
    begin = next(begin for begin in _EAGLE3_NAMES if name.startswith(begin))
    name = _EAGLE3_NAMES[begin] + name.removeprefix(begin)
    for part, (fused, shard) in _SHARDS.items():
        if f".{part}." in name:
            return name.replace(part, fused), shard
    return name, None


def _fill(parameters: Mapping[str, Any], state: Mapping[str, Tensor], named: Any) -> None:
    """Copy every stored tensor to its parameter; raises RuntimeError for a parameter without one.

    Scales of SGLang's quantised layers are not stored and keep their defaults.
    """
    left = {name for name, parameter in parameters.items() if not getattr(parameter, "_skip_weight_check", False)}
    for stored, tensor in state.items():
        name, shard = named(stored)
        parameter = parameters[name]
        load = getattr(parameter, "weight_loader", default_weight_loader)
        load(parameter, tensor) if shard is None else load(parameter, tensor, shard)
        left.discard(name)
    if left:
        raise RuntimeError(f"no stored tensor went to {sorted(left)}")


EntryClass = [PrismDraftModel, PrismEagle3DraftModel]
