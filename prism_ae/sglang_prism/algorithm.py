"""The speculative algorithms that the plugin adds to SGLang.

A user asks for PRISM; which of the two registered algorithms runs follows from the checkpoint (`registration`).
Both draft, verify and extend as SGLang's EAGLE does, with PRISM's draft model: a drafter of one module is EAGLE-2.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglang.srt.server_args import ServerArgs

PRISM = "PRISM"
"""The drafter reads the target's last hidden state. What users ask for, whatever the checkpoint is."""

PRISM_CAPTURED = "PRISM_CAPTURED"
"""The drafter reads several auxiliary hidden states (PRISM*, EAGLE-3), which SGLang captures. Stored in results."""

NAMES = frozenset({PRISM, PRISM_CAPTURED})
"""SGLang's names of the two registered algorithms."""

OVERRIDDEN = frozenset({"is_eagle", "is_eagle3", "create_worker"})
"""Functions that PRISM defines itself. All others are those of SGLang's own enum of algorithms, which call these."""


def register_algorithms(missing_hooks: Callable[[], list[str]]) -> None:
    """Add both to SGLang's registry; once per process.

    Args:
        missing_hooks: names the functions of SGLang that should be wrapped in this process and are not.
    """
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
    from sglang.srt.speculative.spec_registry import CustomSpecAlgo

    class Prism(CustomSpecAlgo):
        """Takes the branches that SGLang takes for EAGLE."""

        reads_aux_hidden = False

        def is_eagle(self) -> bool:
            return True

        def is_eagle3(self) -> bool:
            return self.reads_aux_hidden

    class PrismAuxHidden(Prism):
        reads_aux_hidden = True

    # The registry's base class answers for an algorithm that shares nothing with SGLang's own: no draft input in a
    # disaggregated decode server, for one.
    for name, function in vars(SpeculativeAlgorithm).items():
        if isinstance(function, types.FunctionType) and not name.startswith("_") and name not in OVERRIDDEN:
            setattr(Prism, name, function)

    def worker(server_args: ServerArgs) -> Any:
        """The worker's class; SGLang calls this in the scheduler's process.

        Raises:
            RuntimeError: a hook is not in place. SGLang only logs that, and would draft with the wrong modules or give
                wrong answers.
        """
        from sglang.srt.speculative.eagle_worker_v2 import EAGLEWorkerV2

        if missing := missing_hooks():
            raise RuntimeError(
                f"PRISM's changes to {', '.join(missing)} could not be made (SGLang's log says why): another plugin, "
                "or a changed SGLang, is in the way"
            )
        return EAGLEWorkerV2

    SpeculativeAlgorithm.register(PRISM, supports_overlap=True, spec_class=Prism)(worker)
    SpeculativeAlgorithm.register(PRISM_CAPTURED, supports_overlap=True, spec_class=PrismAuxHidden)(worker)
