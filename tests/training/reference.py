"""Drafters composed from transformers' Llama pieces, one token at a time: shares no code with the project."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from prism_ae.drafters.config import DrafterConfig


class Eagle3Layer(nn.Module):
    """EAGLE-3's layer by hand: attention over (normed embedding, normed hidden), residual from the hidden state."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.embedding_norm, self.hidden_norm = LlamaRMSNorm(size, eps), LlamaRMSNorm(size, eps)
        self.self_attn = LlamaAttention(config, 0)
        for name in ("q_proj", "k_proj", "v_proj"):
            rows = getattr(self.self_attn, name).weight.shape[0]
            setattr(self.self_attn, name, nn.Linear(2 * size, rows, bias=False))
        self.post_attention_layernorm, self.mlp = LlamaRMSNorm(size, eps), LlamaMLP(config)


class ReferenceDrafter:
    """Weights by their stored names; `round` drafts like a decoder with a key-value cache."""

    def __init__(self, config: DrafterConfig, state: dict[str, Tensor]) -> None:
        sizes = config.layer.to_hf()
        self.hf = LlamaConfig(
            **{k: v for k, v in sizes.items() if k not in ("architectures", "model_type", "torch_dtype")},
            attn_implementation="eager",
        )
        self.config, self.state = config, state
        self.rotary = LlamaRotaryEmbedding(self.hf)
        self.modules = [self._module(number).to(next(iter(state.values())).dtype) for number in range(config.modules)]

    def _module(self, number: int) -> nn.ModuleList:
        prefix = f"modules.{number}."
        if self.config.cell == "eagle3":
            layers = nn.ModuleList([Eagle3Layer(self.hf)])
            mine = {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}
            layers[0].load_state_dict(mine)
            return layers
        layers = nn.ModuleList(LlamaDecoderLayer(self.hf, i) for i in range(self.config.layer.num_hidden_layers))
        layers[0].input_layernorm = nn.Identity()
        for i, layer in enumerate(layers):
            prefix = f"modules.{number}.layers.{i}."
            layer.load_state_dict({k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)})
        return layers

    def project_hidden(self, feature: Tensor) -> Tensor:
        if not self.config.aux_hidden_layers:
            return feature
        return nn.functional.linear(feature, self.state["entry.weight"], self.state.get("entry.bias"))

    def token(self, module: int, embedding: Tensor, hidden: Tensor, position: int, cache: DynamicCache) -> Tensor:
        """One position through one module; its keys and values join ``cache``. Vectors [H]."""
        place = torch.tensor([[position]])
        angles = self.rotary(embedding, place)
        if self.config.cell == "eagle3":
            layer = self.modules[0][0]
            mixed = torch.cat([layer.embedding_norm(embedding), layer.hidden_norm(hidden)])[None, None]
            x = hidden + layer.self_attn(mixed, angles, None, past_key_values=cache)[0][0, 0]
            return x + layer.mlp(layer.post_attention_layernorm(x))
        prefix = f"modules.{module}.fusion."
        x = nn.functional.linear(
            torch.cat([embedding, hidden]), self.state[prefix + "weight"], self.state[prefix + "bias"]
        )[None, None]
        for layer in self.modules[module]:
            x = layer(x, position_ids=place, past_key_values=cache, use_cache=True, position_embeddings=angles)
        return x[0, 0]

    @torch.no_grad()
    def round(self, embedding: Tensor, features: Tensor, start: int, steps: int, own: bool) -> list[Tensor]:
        """Outputs of the round that starts at position ``start``: step j's at position start + j."""
        inputs = [self.project_hidden(features[p]) for p in range(start + 1)]
        outputs: list[Tensor] = []
        context = DynamicCache()
        for p, hidden in enumerate(inputs):
            last = self.token(self.config.module_of(0), embedding[p], hidden, p, context)
        outputs.append(last)
        for step in range(1, steps):
            position = start + step
            if position >= len(embedding):
                break
            module = self.config.module_of(step)
            inputs.append(outputs[-1])
            if own:  # everything so far, written by the module that reads it
                cache = DynamicCache()
                for p, hidden in enumerate(inputs):
                    last = self.token(module, embedding[p], hidden, p, cache)
            else:
                last = self.token(module, embedding[position], inputs[-1], position, context)
            outputs.append(last)
        return outputs
