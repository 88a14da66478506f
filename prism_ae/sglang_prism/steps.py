"""The draft step under way: the index by which a step-mapped drafter chooses its module.

Step 0 is the draft extend, which reads the target's hidden states. SGLang runs draft forward i (from 1) with the
i-th of its multi-step attention backends in the forward context, both eagerly and while a CUDA graph of the draft
loop is captured. So each backend gets its step when it is made, and the model reads it from the context: a captured
graph holds the choice of each step, and replay repeats it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

ATTRIBUTE = "prism_ae_draft_step"


def number_backends(result: Any, draft_worker: Any, *args: Any, **options: Any) -> None:
    """After the draft worker made its attention backends: write each one's draft step on it."""
    backends = getattr(draft_worker.draft_attn_backend, "attn_backends", ())
    for number, backend in enumerate(backends, start=1):
        setattr(backend, ATTRIBUTE, number)


def draft_step(forward_batch: ForwardBatch) -> int:
    """The draft step of the forward pass under way, from 0.

    Raises:
        AttributeError: a draft decode outside of the draft loop: SGLang has changed.
    """
    if not forward_batch.forward_mode.is_decode():
        return 0
    from sglang.srt.model_executor.forward_context import get_attn_backend

    return int(getattr(get_attn_backend(), ATTRIBUTE))


HOOKS = [
    ("sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker.init_attention_backend", number_backends, "after"),
]
