"""Verification: the target walks down the draft tree with its own samples.

At the root, and at every node it reaches, the target samples one token x from its own distribution p there (greedily at
T = 0) and commits it. If x was drafted as a child of that node, the draft is accepted and the walk goes on there;
if not, x is the round's bonus token and the round ends. Every committed token is the target's own sample given all
before it, so the text has exactly the target's distribution, whatever was drafted: the verification is lossless.

This is EAGLE-2's rule for deterministic proposals (its children are fixed by the tree, not sampled). That rule tries
the children c_1, c_2, ... in turn, accepts c_i with probability p(c_i) / (1 - sum_{j<i} p(c_j)), and after each
refusal removes c_i from p and renormalises; when all are refused it samples the bonus token from what is left.
The probability that it commits c_i is

    prod_{j<i} (1 - p(c_j) / (1 - sum_{l<j} p(c_l)))  *  p(c_i) / (1 - sum_{j<i} p(c_j)),

and since 1 - p(c_j) / (1 - S_j) = (1 - S_{j+1}) / (1 - S_j) with S_j = sum_{l<j} p(c_l), the product telescopes to
1 - S_i: child c_i is committed with probability p(c_i) and, likewise, any other token y with probability p(y). Token
and "was it a child" together therefore have the same joint distribution under both rules, at every node: accepted
lengths too. One sample per node needs one random number per position of the text, which is what lets the randomness
belong to the question (`prism_ae.decoding.sampling`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from prism_ae.decoding.tree import DraftTree


@dataclasses.dataclass(frozen=True)
class Walk:
    """The tokens that a round commits, for B rows; d is the tree's depth.

    Attributes:
        nodes: visited nodes [B, d + 1], the root first; defined up to place ``accepted``, then the last one repeated.
        tokens: committed tokens [B, d + 1]: accepted drafts, then the bonus token; defined up to place ``accepted``.
        accepted: accepted drafts [B], 0 to d.
    """

    nodes: Tensor
    tokens: Tensor
    accepted: Tensor


def walk(tree: DraftTree, depth: int, sample: Callable[[Tensor, int], Tensor]) -> Walk:
    """Walk down each row's tree.

    Args:
        depth: the deepest node's, or more.
        sample: (node [B], level) -> the target's token at that node [B]; level 0 is the root.
    """
    node = torch.zeros_like(tree.tokens[:, 0])
    going = torch.ones_like(node, dtype=torch.bool)
    accepted = torch.zeros_like(node)
    nodes, tokens = [node], []
    for level in range(depth + 1):
        token = sample(node, level)
        tokens.append(token)
        if level == depth:  # no node is deeper, so this token is a bonus token or comes after one
            break
        child = (tree.parents == node.unsqueeze(1)) & (tree.tokens == token.unsqueeze(1))
        place = child.int().argmax(dim=1)
        going = going & (place > 0)  # the root is no child
        node = torch.where(going, place, node)
        accepted = accepted + going
        nodes.append(node)
        if node.device.type == "cpu" and not bool(going.any()):  # asking a GPU would stall it
            fill = depth - level - 1
            nodes += [node] * fill
            tokens += [token] * (fill + 1)
            break
    return Walk(torch.stack(nodes, dim=1), torch.stack(tokens, dim=1), accepted)
