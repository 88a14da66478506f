"""Options that a PRISM server refuses at its start, and variables that would falsify its results. Imports no SGLang.

With each option below a stock server, or this one, would start and then fail at the first request or silently give
wrong answers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

_REFUSED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "--enable-multi-layer-eagle",
        lambda args: bool(args.enable_multi_layer_eagle),
        "it is for drafters of another family; PRISM's modules are chosen by the step mapping in their checkpoint",
    ),
    (
        "--tokenizer-worker-num",
        lambda args: args.tokenizer_worker_num > 1,
        "SGLang's extra tokenizer processes load no plugins and do not know PRISM; leave it at 1",
    ),
    (
        "--enable-custom-logit-processor",
        lambda args: bool(args.enable_custom_logit_processor),
        "drafted tokens would be verified without the processors; serve such requests without PRISM",
    ),
    (
        "--disaggregation-mode",
        lambda args: args.disaggregation_mode not in (None, "null"),
        "drafting across separate prefill and decode servers has never been tried with PRISM",
    ),
    (
        "--enable-dp-attention",
        lambda args: bool(args.enable_dp_attention),
        "SGLang has none for Llama targets, and idle ranks would feed drafters inputs of the wrong width",
    ),
    (
        "--quantization-param-path",
        lambda args: bool(args.quantization_param_path),
        "a file of key-value scales is for the target's layers, and SGLang would apply it to the drafter's, too",
    ),
    (
        "--speculative-draft-model-quantization",
        lambda args: args.speculative_draft_model_quantization not in (None, "unquant", "fp8"),
        "drafters are stored as floats, and fp8 is the method that quantises such weights while they are loaded",
    ),
)

_INTERPRETER = "TRITON_INTERPRET"

FALSIFYING = ("SGLANG_SIMULATE_", "SGLANG_TEST_")
"""Prefixes of SGLang's variables that simulate results or provoke failures, for its own tests."""


def refused_options(server_args: Any) -> str:
    """The reason why a server with these arguments cannot draft with PRISM, or ""."""
    for option, given, reason in _REFUSED:
        if given(server_args):
            return f"PRISM cannot be served with {option}: {reason}"
    if method := _without_kernels(server_args):
        return (
            f"a model quantised by {method} cannot be served on this CPU: SGLang's kernels for it are not installed, "
            f"or need a GPU (for a test, {_INTERPRETER}=1 interprets them)"
        )
    return ""


def _without_kernels(server_args: Any) -> str | None:
    """The quantisation method without kernels for this CPU; the server would crash at its first request."""
    from prism_ae.sglang_prism.stand_ins.paths import is_stood_in

    if server_args.device != "cpu" or os.environ.get(_INTERPRETER) == "1" or not is_stood_in("sgl_kernel"):
        return None
    target = getattr(server_args.get_model_config(), "quantization", None)
    return server_args.quantization or server_args.speculative_draft_model_quantization or target


def falsifying_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that are set and would falsify a measurement, sorted."""
    return sorted(name for name, value in environment.items() if name.startswith(FALSIFYING) and value)


def warn_of_environment() -> None:
    """Log a warning per falsifying variable: in a user's own server they may be set on purpose."""
    for name in falsifying_variables(os.environ):
        logging.getLogger(__name__).warning(
            "%s=%s is set: what this server accepts, writes or reports may be simulated", name, os.environ[name]
        )
