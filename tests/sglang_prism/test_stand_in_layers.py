"""Our norm and rotary embedding against SGLang's own, in a process that has it."""

from __future__ import annotations

import json

from stand_in_process import needs_sglang, run


@needs_sglang
def test_norm_and_rotation_are_sglangs_own() -> None:
    found = json.loads(run("stand_in_layers_oracle.py").splitlines()[-1])
    assert 0 <= found["norm"] < 3e-6
    assert 0 <= found["norm with residual"] < 3e-6
    assert found["rotary"] == 0.0
    # What would be wrong is noticed, and what is not done here is left to SGLang.
    assert found["wrong epsilon"] > 0.01
    assert found["other positions"] > 0.1
    assert found["half"] == found["pairs"] == found["offsets"] == "left to SGLang"
