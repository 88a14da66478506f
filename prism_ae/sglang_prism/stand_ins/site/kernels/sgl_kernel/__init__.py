"""Stand-in for the CPU build of sgl_kernel, see `prism_ae.sglang_prism.stand_ins`."""

import torch

from prism_ae.sglang_prism.stand_ins.attention import decode_attention_cpu, extend_attention_cpu
from prism_ae.sglang_prism.stand_ins.cache import (
    assign_draft_cache_locs_contiguous_cpu,
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    build_draft_decode_metadata_cpu,
    copy_all_layer_kv_cache_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
)
from prism_ae.sglang_prism.stand_ins.tree import build_tree_kernel_efficient_cpu, verify_tree_greedy_cpu
from prism_ae.sglang_prism.stand_ins.tree_sampling import (
    top_k_renorm_prob,
    top_p_renorm_prob,
    tree_speculative_sampling_target_only,
)

__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_draft_decode_metadata_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "rotate_input_ids_cpu",
    "top_k_renorm_prob",
    "top_p_renorm_prob",
    "tree_speculative_sampling_target_only",
    "verify_tree_greedy_cpu",
]

__version__ = "0+prism.stand.in"


def rotate_input_ids_cpu(*args: object, **options: object) -> None:
    """Imported by SGLang's module for multi-layer EAGLE, called only there."""
    raise NotImplementedError("multi-layer EAGLE on the CPU without sgl_kernel")


# SGLang's attention backend looks these two up here. An op that exists is left alone.
for _op in (decode_attention_cpu, extend_attention_cpu):
    if not hasattr(torch.ops.sgl_kernel, _op.__name__):
        setattr(torch.ops.sgl_kernel, _op.__name__, _op)
