"""Run in a process of its own, where Triton is interpreted: the tree's stand-ins against SGLang's Triton kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sglang.srt.speculative.eagle_utils import TreeMaskMode, sgl_build_tree_kernel_triton, verify_tree_greedy_triton

from prism_ae.sglang_prism.stand_ins.tree import build_tree_kernel_efficient_cpu, verify_tree_greedy_cpu

sys.path.insert(0, str(Path(__file__).parent))
from stand_in_trees import drafted

SHAPES = [(1, 2, 2, 4), (2, 4, 3, 8), (3, 3, 5, 16), (5, 2, 3, 6), (2, 1, 4, 5), (1, 4, 1, 5), (3, 4, 4, 24)]


def compare(rows: int, topk: int, steps: int, nodes: int, mode: TreeMaskMode) -> int:
    """Both sides on one random tree; returns the number of accepted drafts."""
    tree = drafted(rows, topk, steps, nodes)
    lengths = torch.randint(0, 20, (rows,))
    if not tree.parent_list.shape[1]:  # the kernel reads an entry that does not exist, though only to drop it
        tree.parent_list.resize_(rows, 1)
    size = rows * nodes * nodes + (int(lengths.sum()) * nodes if mode == TreeMaskMode.FULL_MASK else 0)
    built = []
    for build in (build_tree_kernel_efficient_cpu, sgl_build_tree_kernel_triton):
        mask, positions = torch.ones(size, dtype=torch.bool), torch.zeros(rows * nodes, dtype=torch.long)
        index, token, sibling = torch.full((3, rows, nodes), -1)
        build(
            tree.parent_list,
            tree.selected_index,
            lengths,
            mask,
            positions,
            index,
            token,
            sibling,
            topk,
            steps,
            nodes,
            mode,
        )
        built.append((mask, positions, index, token, sibling))
    for name, ours, theirs in zip(("mask", "positions", "index", "token", "sibling"), *built, strict=True):
        assert torch.equal(ours, theirs), (name, rows, topk, steps, nodes, mode)
    _, _, index, token, sibling = built[0]
    # Few different tokens, distinct among siblings: the target often agrees.
    candidates = torch.stack([torch.randperm(nodes) for _ in range(rows)])
    target = torch.randint(0, nodes, (rows, nodes))
    for row in range(rows):  # make it follow a random path
        node = 0
        while token[row, node] != -1:
            child = int(token[row, node])
            while sibling[row, child] != -1 and torch.rand(()) < 0.5:
                child = int(sibling[row, child])
            if torch.rand(()) < 0.9:
                target[row, node] = candidates[row, child]
            node = child
    walked = []
    for verify in (verify_tree_greedy_cpu, verify_tree_greedy_triton):
        predicts = torch.zeros(rows * nodes, dtype=torch.int32)
        accept, accepted = torch.full((rows, steps + 1), -1, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
        verify(predicts, accept, accepted, candidates, index, token, sibling, target)
        walked.append((predicts, accept, accepted))
    for name, ours, theirs in zip(("predicts", "accept_index", "accept_token_num"), *walked, strict=True):
        assert torch.equal(ours, theirs), (name, rows, topk, steps, nodes)
    return int(walked[0][2].sum())


def main() -> None:
    torch.manual_seed(0)
    trees = total = 0
    for mode in (TreeMaskMode.QLEN_ONLY, TreeMaskMode.FULL_MASK):
        for shape in SHAPES:
            total += compare(*shape, mode)
            trees += shape[0]
    print(f"{trees} trees {total} accepted")


if __name__ == "__main__":
    main()
