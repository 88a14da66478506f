"""Every tensor of a batch is made on the models' device, which a run on a CPU would not show.

No GPU is needed: on torch's ``meta`` device everything is computed but the uniforms, and what lies on another device is
refused as on a GPU. What the host asks for is answered by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.models.llama import cast_parameters

SHAPE, META = TreeShape(3, 3, 9), torch.device("meta")


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row commits two tokens, everything is finite, every question of the host is answered with yes."""
    tolist = Tensor.tolist

    def answer(self: Tensor) -> Any:
        if not self.is_meta:
            return tolist(self)
        return [[2, *[1] * (self.shape[1] - 1)] for _ in range(self.shape[0])] if self.dim() == 2 else [1] * len(self)

    monkeypatch.setattr(Tensor, "tolist", answer)
    for name, value in (("__bool__", True), ("__int__", 2)):
        real = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, real=real, value=value: value if self.is_meta else real(self))


def _decode(kind: str | None) -> None:
    target = make_target(4, dtype=torch.float32)
    drafter = make_drafter(kind, target) if kind else None
    for model in (target, drafter) if drafter else (target,):
        cast_parameters(model, torch.float16)
        model.to(META)
    batch = Batch(target, drafter, SHAPE if drafter else None, rows=4, max_seq_len=100, uniforms_per_row=60)
    assert batch.sample_at_once
    uniforms = [np.zeros(60)] * 3
    batch.admit([[1, 2, 3], [4, 5], [6]], uniforms, [0.0, 1.0, 1.0], [[1, 2, 3], [4], [5]])
    batch.round()
    batch._is_known = [False] * 3
    batch.round()
    batch.release(0)
    batch.round()
    assert batch.cache.memory.dtype == torch.float16
    assert batch.cache.memory.is_meta


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_batch_lives_on_its_models_device(kind: str | None) -> None:
    _decode(kind)


def _on_the_cpu(parents: Tensor, depth: int) -> Tensor:
    return torch.ones(*parents.shape, parents.shape[1], dtype=torch.bool)


def test_a_tensor_left_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "visible", _on_the_cpu)
    with pytest.raises(RuntimeError, match="device"):
        _decode("prism")
