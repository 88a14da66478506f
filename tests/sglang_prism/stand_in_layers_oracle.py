"""Run in a process of its own: SGLang's own norm and rotary embedding beside ours, prints the largest differences."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.rotary_embedding.base import RotaryEmbedding

from prism_ae.sglang_prism.stand_ins.layers import rms_norm, rotate

BASE = "sglang.srt.layers.rotary_embedding.base"


def apart(ours: Any, theirs: Any) -> float:
    pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
    return max(float((one - other).abs().max()) for one, other in pairs)


def refused(*args: Any) -> str:
    """Stands for SGLang's own, where ours leaves it to that."""
    return "left to SGLang"


def main() -> None:
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    settings = SimpleNamespace(deterministic=SimpleNamespace(rl_on_policy_target=None))
    with torch.inference_mode(), mock.patch(f"{BASE}.get_exec", return_value=settings):
        norm = RMSNorm(48, eps=1e-5)
        norm.weight.copy_(torch.randn(48))
        x, residual = torch.randn(7, 48), torch.randn(7, 48)
        found["norm"] = apart(rms_norm(refused, norm, x), norm.forward_native(x))
        both = norm.forward_native(x.clone(), residual.clone())
        found["norm with residual"] = apart(rms_norm(refused, norm, x, residual), both)
        found["wrong epsilon"] = apart(
            rms_norm(refused, RMSNorm(48, eps=0.5), x), RMSNorm(48, eps=1e-5).forward_native(x)
        )
        found["half"] = rms_norm(refused, norm, x.bfloat16())
        rotary = RotaryEmbedding(16, 16, 64, 10000, is_neox_style=True, dtype=torch.float32)
        mixed = torch.randn(7, 16 * (4 + 2 + 2))  # as q, k and v come out of one matrix product
        query, key, _ = mixed.split([64, 32, 32], dim=-1)
        positions = torch.tensor([0, 1, 5, 5, 63, 2, 3])
        theirs = rotary.forward_native(positions, query, key)
        found["rotary"] = apart(rotate(refused, rotary, positions, query, key), theirs)
        found["other positions"] = apart(rotate(refused, rotary, positions.flip(0), query, key), theirs)
        paired = RotaryEmbedding(16, 16, 64, 10000, is_neox_style=False, dtype=torch.float32)
        found["pairs"] = rotate(refused, paired, positions, query, key)
        found["offsets"] = rotate(refused, rotary, positions, query, key, positions)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
