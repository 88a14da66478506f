"""Whether the tokens that a verifier committed are the target's, up to rounding: the verifier's own work, done again.

In half precision texts of one question may differ between honest runs: a tree or batch of another shape adds up in
another order, and where two tokens are nearly as good (a *near tie*) the other one is taken, and the text goes on from
there. So texts that differ show nothing, and texts that are equal only that two runs have the same fault. Here each
committed token is looked at by itself, with the target's logits as the verifier saw them, by a formula that the
verifier does not use (`margins`): how far the token is from being another one.

    margin < 0              a fault: these logits do not give this token. The verifier saw the very same, so no rounding
                            of theirs explains it
    margin <= `resolution`  a near tie: another honest run may take another token here
    above                   every honest run takes this token

**The margin**, in logits, at temperature 0: the token's logit minus the best other one. At temperature T the token is
the target's at the position's uniform number u if a <= u < b, the token's interval of the cumulative distribution. Its
margin is T times the distance of u from the nearer edge in log-odds, log(x / (1 - x)), negative outside. That is the
same unit: an edge is the probability of a set of tokens, and if each logit is off by at most e, the odds of any set
change by at most the factor exp(2 e / T), since numerator and denominator change by at most exp(e / T) each. At
temperature 0 the difference of two logits changes by at most 2 e. The edge a itself changes by at most
a (1 - a) 2 e / T, to first order.

**The resolution** is 2 e for the e that half precision means: `STEPS` / 2 relative rounding steps (torch.finfo(dtype)'s
eps) of the largest logit, since hidden states and logits are rounded to that relative step whatever their size.
Measured on the mini suite's targets of 12 layers in bfloat16, vanilla and three drafters, 244 pairs of texts that part:
the larger of both margins there is 0.8 steps in the median at temperature 0 and 0.2 at temperature 1, and 1.4 at most.
Rounding adds up like the root of the layers, so that is 2.3 for 32 of them; `STEPS` is 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 3.0
"""Rounding steps of the largest logit within which two honest runs may choose otherwise."""

ARITHMETIC = 1e-6
"""Logits that fp64 sums in another order may be off by, and more: a fault lies further outside."""

SURE, NEAR_TIE, FAULT = 0, 1, 2


def margins(logits: Tensor, tokens: Tensor, uniforms: Tensor, temperature: Tensor) -> Tensor:
    """How far each token is from being another one, in logits; negative where these logits do not give it.

    Args:
        logits: the target's [m, V].
        tokens: what was committed there [m].
        uniforms: of the positions, fp64 [m], in [0, 1).
        temperature: fp64 [m]; 0 is greedy.
    """
    values, chosen = logits.double(), tokens.unsqueeze(1)
    best = values.max(dim=1, keepdim=True).values
    greedy = values.gather(1, chosen) - values.scatter(1, chosen, -torch.inf).max(dim=1, keepdim=True).values
    scale = torch.where(temperature > 0, temperature, 1.0)
    weights = torch.exp((values - best) / scale.unsqueeze(1))
    places = torch.arange(values.shape[1], device=values.device)
    before = (weights * (places < chosen)).sum(dim=1)
    behind = (weights * (places > chosen)).sum(dim=1)
    own = weights.gather(1, chosen).squeeze(1)
    number = torch.logit(uniforms)
    # No token before, or none behind: no edge there, at infinite odds.
    lower = torch.where(before == 0, torch.inf, number - torch.log(before / (own + behind)))
    upper = torch.where(behind == 0, torch.inf, torch.log((before + own) / behind) - number)
    return torch.where(temperature > 0, scale * torch.minimum(lower, upper), greedy.squeeze(1))


def resolution(logits: Tensor) -> Tensor:
    """The largest margin [m] at which another honest run may take another token, from logits [m, V] of its dtype."""
    return STEPS * torch.finfo(logits.dtype).eps * logits.double().abs().max(dim=1).values


def examined(logits: Tensor, tokens: Tensor, uniforms: Tensor, temperature: Tensor) -> Tensor:
    """`SURE`, `NEAR_TIE` or `FAULT` for each token [m]; arguments as for `margins`."""
    margin = margins(logits, tokens, uniforms, temperature)
    near = torch.where(margin <= resolution(logits), NEAR_TIE, SURE)
    # Not "margin < ...": a margin that is no number is no token of the target's either.
    return torch.where(margin >= -ARITHMETIC, near, FAULT)
