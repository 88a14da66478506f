"""The speculative algorithms that the plugin adds to SGLang.

A user asks for PRISM; which of the two registered algorithms runs follows from the checkpoint (`registration`).
Both draft, verify and extend as SGLang's EAGLE does, with PRISM's draft model: a drafter of one module is EAGLE-2.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglang.srt.server_args import ServerArgs

PRISM = "PRISM"
"""The drafter reads the target's last hidden state. What users ask for, whatever the checkpoint is."""

PRISM_CAPTURED = "PRISM_CAPTURED"
"""The drafter reads several captured hidden states (PRISM*, EAGLE-3)."""


def register_algorithms() -> None:
    """Add both to SGLang's registry; once per process."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
    from sglang.srt.speculative.spec_registry import CustomSpecAlgo

    class Prism(CustomSpecAlgo):
        """Takes the branches that SGLang takes for EAGLE."""

        captured = False

        def is_eagle(self) -> bool:
            return True

        def is_eagle3(self) -> bool:
            return self.captured

        def supports_grammar_overlap(self) -> bool:
            return True

        def handle_server_args(self, server_args: ServerArgs) -> None:
            SpeculativeAlgorithm.EAGLE.handle_server_args(server_args)

    class PrismCaptured(Prism):
        captured = True

    # The registry's base class lacks some of the enum's plain methods that SGLang calls on either (create_future_map
    # and others): they are written in terms of the predicates above, so the enum's own functions serve.
    for name, function in vars(SpeculativeAlgorithm).items():
        if isinstance(function, types.FunctionType) and not name.startswith("_") and not hasattr(Prism, name):
            setattr(Prism, name, function)

    def worker(server_args: ServerArgs) -> Any:
        from sglang.srt.speculative.eagle_worker_v2 import EAGLEWorkerV2

        return EAGLEWorkerV2

    SpeculativeAlgorithm.register(PRISM, supports_overlap=True, spec_class=Prism)(worker)
    SpeculativeAlgorithm.register(PRISM_CAPTURED, supports_overlap=True, spec_class=PrismCaptured)(worker)
