"""Sampling with common random numbers: the randomness belongs to the question and to nothing else.

Every position of every answer has one uniform number of its own, a function of (seed, question, turn, position) alone,
and the token there is the inverse of the target's cumulative distribution at that number. So the text of a question at
T = 1 is the same for every drafter, for every draft tree, without a drafter, and whatever else is in the batch:
losslessness can be tested text against text at any temperature, and drafters are compared on common random numbers.

Distributions are computed in fp64 from the model's logits, so that summing many small probabilities does not move the
sampled point; only differences of the logits themselves remain.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def question_uniforms(seed: int, question_id: str, turn: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) [count] of a turn (from 0), one per position of the answer.

    Philox 4x64 in counter mode, keyed by sha256 of the arguments; 53 bits of each raw number.
    """
    key = hashlib.sha256(f"{seed}\0{question_id}\0{turn}".encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(key[:16], "little")).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample_tokens(logits: Tensor, uniforms: Tensor, temperature: Tensor | None) -> Tensor:
    """The target's token for each row.

    Args:
        logits: [..., V].
        uniforms: fp64 [...], in [0, 1).
        temperature: fp64 [...]; 0 takes the largest logit (the first of equal ones), above 0 samples. None: 0 for all,
            which nothing has to be asked of the device to know.

    Returns:
        Token ids [...]: the least x whose cumulative probability exceeds the uniform number.
    """
    # `max` finds what `argmax` does, the first of equal ones, and a CPU in half precision in a quarter of the time.
    best = logits.max(dim=-1).indices
    if temperature is None:
        return best
    sampled = temperature > 0
    scale = torch.where(sampled, temperature, 1.0)
    at_once = len(logits) if logits.device.type != "cpu" else max(1, _FP64_NUMBERS // logits.shape[1:].numel())
    parts = (logits.split(at_once), uniforms.split(at_once), scale.split(at_once))
    token = torch.cat([_inverse(*part) for part in zip(*parts, strict=True)])
    return torch.where(sampled, token.clamp_(max=logits.shape[-1] - 1), best)


_FP64_NUMBERS = 1 << 18
"""Of distributions that are computed together on a CPU: what its cache holds. Each row is computed by itself."""


def _inverse(logits: Tensor, uniforms: Tensor, scale: Tensor) -> Tensor:
    """The inverse of each cumulative distribution at its uniform number [...]; ``scale`` [...] is the temperature."""
    total = torch.softmax(logits.double() / scale.unsqueeze(-1), dim=-1).cumsum_(dim=-1)
    # A number scaled by the last sum can never lie beyond it, whatever rounding did to that sum.
    return torch.searchsorted(total, uniforms.unsqueeze(-1) * total[..., -1:], right=True).squeeze(-1)
