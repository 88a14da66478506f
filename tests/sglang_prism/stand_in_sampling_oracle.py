"""Run in a process of its own: `prism_ae.sglang_prism.sampling` inside SGLang, prints what it measured as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sgl_kernel
import torch
from sglang.srt import distributed, runtime_context
from sglang.srt.layers import dp_attention, sampler
from sglang.srt.speculative import eagle_utils
from torch import Tensor

from prism_ae.sglang_prism.sampling import HOOKS, around_sample, verification_probs
from prism_ae.sglang_prism.stand_ins.cache import page_size

sys.path.insert(0, str(Path(__file__).parent))
from stand_in_trees import links

BATCH, NODES, SIZE = 20_000, 3, 8
LOGITS = torch.tensor([1.8, 2.0, 1.5, 1.2, 1.0, 0.6, 0.2, -0.5])
TOKENS = [0, 1, 4]  # the root's, and two drafted as its children


def filters(rows: int, top_k: int = 1 << 30, top_p: float = 1.0, min_p: float = 0.0, temperature: float = 0.8) -> Any:
    return SimpleNamespace(
        temperatures=torch.full((rows, 1), temperature),
        top_ks=torch.full((rows,), top_k, dtype=torch.int32),
        top_ps=torch.full((rows,), top_p),
        min_ps=torch.full((rows,), min_p),
        need_top_k_sampling=top_k < 1 << 30,
        need_top_p_sampling=top_p < 1,
        need_min_p_sampling=min_p > 0,
        is_all_greedy=temperature == 0,
        sampling_seed=None,
        acc_additive_penalties=None,
        acc_scaling_penalties=None,
        logit_bias=None,
    )


def sampler_probs(probs: Tensor, info: Any) -> Tensor:
    """The distribution from which SGLang's own sampler draws: what it hands to `torch.multinomial`."""
    handed: list[Tensor] = []

    def multinomial(ordered: Tensor, num_samples: int) -> Tensor:
        handed.append(ordered)
        return torch.zeros(len(ordered), num_samples, dtype=torch.long)

    with mock.patch.object(torch, "multinomial", multinomial):
        sampler.top_k_top_p_min_p_sampling_from_probs_torch(
            probs, info.top_ks, info.top_ps, info.min_ps, info.need_min_p_sampling, None, torch.zeros(len(probs))
        )
    kept = torch.zeros_like(probs).scatter_(1, probs.sort(dim=-1, descending=True).indices, handed[0])
    return kept / kept.sum(dim=-1, keepdim=True)


def largest_difference() -> float:
    """Between the sampler's distribution and verification's, for all combinations of filters."""
    torch.manual_seed(0)
    worst = 0.0
    for top_k in (1, 5, 40, 1 << 30):
        for top_p in (0.3, 0.9, 1.0):
            for min_p in (0.0, 0.05, 0.4):
                info = filters(30, top_k, top_p, min_p)
                probs = (2 * torch.randn(30, 4, 100)).softmax(dim=-1)
                ours = verification_probs(probs, info, "pytorch")
                for node in range(4):
                    worst = max(worst, float((ours[:, node] - sampler_probs(probs[:, node].clone(), info)).abs().max()))
    return worst


def verify(info: Any, hooked: bool) -> Tensor:
    """How often each token was committed first, by `eagle_sample` over `BATCH` equal trees."""
    torch.manual_seed(1)
    token, sibling = (torch.tensor(values).expand(BATCH, NODES) for values in links([-1, 0, 0]))
    tree = SimpleNamespace(
        draft_token=torch.tensor(TOKENS).repeat(BATCH),
        draft_token_num=NODES,
        max_tree_depth=2,
        tree_topk=2,
        retrieve_index=torch.arange(BATCH * NODES).view(BATCH, NODES),
        retrieve_next_token=token,
        retrieve_next_sibling=sibling,
    )
    batch = SimpleNamespace(
        device="cpu",
        seq_lens=torch.ones(BATCH, dtype=torch.long),
        forward_mode=SimpleNamespace(is_idle=lambda: False),
        sampling_info=info,
    )
    logits = SimpleNamespace(next_token_logits=LOGITS.repeat(BATCH * NODES, 1))
    arguments = (tree, batch, logits)
    predict, _, accept = (
        around_sample(eagle_utils.eagle_sample, *arguments) if hooked else eagle_utils.eagle_sample(*arguments)
    )
    assert batch.sampling_info is info
    return torch.bincount(predict[accept[:, 0].long()].long(), minlength=SIZE)


def p_value(counts: Tensor, info: Any) -> float:
    """Chi-square of the counts under the sampler's distribution; 0 if a token was drawn that cannot be."""
    probs = (LOGITS / info.temperatures[0]).softmax(dim=-1).unsqueeze(0)
    expected = sampler_probs(probs, filters_of_one(info))[0].double() * BATCH
    can = expected > 0
    if counts[~can].any():
        return 0.0
    statistic = ((counts[can] - expected[can]) ** 2 / expected[can]).sum() / 2
    freedom = torch.tensor((int(can.sum()) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic))


def filters_of_one(info: Any) -> Any:
    values = {name: value[:1] if isinstance(value, Tensor) else value for name, value in vars(info).items()}
    return SimpleNamespace(**values)


def refuses(info: Any) -> str:
    try:
        verify(info, hooked=True)
    except NotImplementedError as error:
        return str(error)
    return ""


def main() -> None:
    spec = SimpleNamespace(
        speculative_use_rejection_sampling=False,
        speculative_accept_threshold_single=1.0,
        speculative_accept_threshold_acc=1.0,
    )
    exec_ = SimpleNamespace(kernel=SimpleNamespace(sampling_backend="pytorch"))
    walk = sgl_kernel.tree_speculative_sampling_target_only
    plain, both, least = filters(BATCH), filters(BATCH, 5, 0.85), filters(BATCH, min_p=0.4)
    with (
        mock.patch.object(runtime_context, "get_spec", return_value=spec),
        mock.patch.object(runtime_context, "get_exec", return_value=exec_),
        mock.patch.object(eagle_utils, "get_spec", return_value=spec),
        mock.patch.object(distributed, "get_tp_group", return_value=SimpleNamespace(world_size=1)),
        mock.patch.object(dp_attention, "is_dp_attention_enabled", return_value=False),
    ):
        found: dict[str, Any] = {
            "largest difference": largest_difference(),
            "hooked": [p_value(verify(info, hooked=True), info) for info in (plain, both, least)],
            "likeliest on a CPU": verify(plain, hooked=False).tolist(),
            "greedy": verify(filters(BATCH, temperature=0), hooked=True).tolist(),
        }
        spec.speculative_use_rejection_sampling = True
        found["rejection sampling"] = refuses(plain)
        spec.speculative_use_rejection_sampling = False
        exec_.kernel.sampling_backend = "ascend"
        found["backend"] = refuses(both)
        with mock.patch.object(runtime_context, "get_server_args", return_value=SimpleNamespace(page_size=16)):
            found["page size"] = page_size()
        found["restored"] = eagle_utils._is_cpu and sgl_kernel.tree_speculative_sampling_target_only is walk
        eagle_utils._is_cpu = False  # as on a GPU: what stock SGLang samples
        found["stock"] = [p_value(verify(info, hooked=False), info) for info in (plain, both, least)]
    found["target"] = HOOKS[0][0] == f"{eagle_utils.__name__}.{eagle_utils.eagle_sample.__name__}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
