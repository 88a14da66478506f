"""Tree build and greedy walk, against SGLang's own Triton kernels, interpreted, and against following links."""

from __future__ import annotations

import pytest
import torch
from stand_in_process import needs_sglang, run
from stand_in_trees import ancestors, drafted, links

from prism_ae.sglang_prism.stand_ins.tree import (
    FULL_MASK,
    QLEN_ONLY,
    build_tree_kernel_efficient_cpu,
    parents_of_links,
    verify_tree_greedy_cpu,
)

SHAPES = [(1, 2, 2, 4), (3, 3, 5, 16), (4, 2, 3, 9), (2, 1, 4, 5), (2, 4, 1, 5), (2, 10, 6, 60)]


@needs_sglang
def test_as_sglangs_kernels() -> None:
    trees, accepted = map(int, run("stand_in_oracle.py", TRITON_INTERPRET="1").split()[::2])
    assert trees == 34
    assert accepted > 20  # the walks go somewhere


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", [QLEN_ONLY, FULL_MASK])
def test_build(shape: tuple[int, int, int, int], mode: int) -> None:
    rows, topk, steps, nodes = shape
    torch.manual_seed(nodes)
    tree = drafted(*shape)
    lengths = torch.randint(0, 9, (rows,))
    widths = [nodes + (int(length) if mode == FULL_MASK else 0) for length in lengths]
    mask = torch.ones(nodes * sum(widths), dtype=torch.bool)
    positions = torch.full((rows * nodes,), -7)
    index, token, sibling = torch.full((3, rows, nodes), -1)
    build_tree_kernel_efficient_cpu(
        *(tree.parent_list, tree.selected_index, lengths, mask, positions, index, token, sibling),
        *(topk, steps, nodes, mode),
    )
    assert torch.equal(index, torch.arange(rows * nodes).view(rows, nodes))
    for row, part in enumerate(mask.split([nodes * width for width in widths])):
        parents = tree.parents[row]
        text = widths[row] - nodes
        for node, seen in enumerate(part.view(nodes, widths[row]).tolist()):
            above = ancestors(parents, node)
            assert all(seen[:text])
            assert {place for place, sees in enumerate(seen[text:]) if sees} == {0, *above}
            assert positions[row * nodes + node] == lengths[row] + len(above)
        assert (token[row].tolist(), sibling[row].tolist()) == links(parents)
    expected = torch.tensor(tree.parents)
    assert torch.equal(parents_of_links(token, sibling), expected)


def test_other_masks_are_refused_by_name() -> None:
    tree = drafted(1, 2, 2, 4)
    none = torch.zeros(0)
    with pytest.raises(NotImplementedError, match="tree_mask_mode=2"):
        build_tree_kernel_efficient_cpu(
            tree.parent_list, tree.selected_index, torch.ones(1), none, none, none, none, none, 2, 2, 4, 2
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_walk(shape: tuple[int, int, int, int]) -> None:
    """Few tokens, so that the target often agrees; distinct among siblings, as drafting makes them."""
    rows, _, steps, nodes = shape
    torch.manual_seed(steps)
    trees = drafted(*shape).parents
    token, sibling = (torch.tensor(links_) for links_ in zip(*map(links, trees), strict=True))
    candidates = torch.zeros(rows, nodes, dtype=torch.long)
    for row, parents in enumerate(trees):
        for node in range(nodes):
            children = [child for child in range(1, nodes) if parents[child] == node]
            candidates[row, children] = torch.randperm(max(4, nodes // 3))[: len(children)]
    target = torch.randint(0, 4, (rows, nodes))
    index = torch.arange(rows * nodes).view(rows, nodes).flip(0)  # numbered otherwise, to see that it is followed
    predicts = torch.full((rows * nodes,), -5, dtype=torch.int32)
    accept, accepted = torch.full((rows, steps + 1), -1, dtype=torch.int32), torch.full((rows,), -5, dtype=torch.int32)
    verify_tree_greedy_cpu(predicts, accept, accepted, candidates, index, token, sibling, target)
    expected_predicts = torch.full_like(predicts, -5)
    for row, parents in enumerate(trees):
        path = [0]
        while len(path) <= steps:
            wanted = target[row, path[-1]]
            agreed = [n for n in range(1, nodes) if parents[n] == path[-1] and candidates[row, n] == wanted]
            if not agreed:
                break
            path.append(agreed[0])
        for node in path:
            expected_predicts[index[row, node]] = int(target[row, node])
        assert accepted[row] == len(path) - 1
        assert accept[row].tolist() == [*index[row, path].tolist(), *[-1] * (steps + 1 - len(path))]
    assert torch.equal(predicts, expected_predicts)
