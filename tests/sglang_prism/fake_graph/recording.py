"""Operations on tensors, recorded and replayed into the same memory. Imports no SGLang."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING_OPERATIONS = (
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique",
    "aten::_unique",
    "aten::lift_fresh",
)
"""Beginnings of names of operations that a device cannot run without the host: their result, or its shape, is needed
there. The last one is a tensor made of Python's numbers."""

WAITING_METHODS = ("__array__", "cpu", "numpy", "tolist")
"""Methods of tensors that would wait for a device, and are no operation on a CPU."""

_COLLECTIVE = "c10d::"
"""Operations among ranks, which do not say that they write."""

_UNFILLED = ("aten::empty", "aten::new_empty")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A kernel: what it read, and what it wrote. ``fresh`` says which outputs have memory of their own."""

    function: Any
    args: tuple[Any, ...]
    options: dict[str, Any]
    outputs: list[Tensor]
    fresh: list[bool]

    @property
    def name(self) -> str:
        return str(self.function._schema.name)

    def replay(self) -> None:
        if self.name.startswith(_UNFILLED):
            # A graph leaves there what happened to be there: nothing may depend on it.
            for output in self.outputs:
                output.fill_(float("nan") if output.is_floating_point() else 0)
            return
        result = self.function(*self.args, **self.options)
        if self.name.startswith(_COLLECTIVE):
            _wait(result)
        results = _tensors(result)
        for output, result, fresh in zip(self.outputs, results, self.fresh, strict=True):
            if fresh:
                output.copy_(result)


@dataclasses.dataclass(frozen=True)
class Call:
    """A kernel that is not looked into: ``function`` reads what it was captured with, and returns ``output`` anew."""

    function: Callable[[], Tensor]
    output: Tensor
    name: str = "call"

    def replay(self) -> None:
        self.output.copy_(self.function())


class Recording:
    """What a function did to tensors, and what it returned: tensors in memory that a replay writes again."""

    def __init__(self) -> None:
        self.nodes: list[Operation | Call] = []
        self.waits: list[str] = []
        self.output: Any = None

    def replay(self, dropped: str = "") -> Any:
        """Do it again; the same tensors are returned.

        Args:
            dropped: name of operations that are left out, to find out whether anybody notices.
        """
        for node in self.nodes:
            if node.name != dropped:
                node.replay()
        return self.output


_current: _Operations | None = None


def record(function: Callable[[], Any]) -> Recording:
    """Run ``function`` and record what it does."""
    global _current
    recording = Recording()
    operations = _Operations(recording)
    _current = operations
    try:
        with _Methods(operations), operations:
            recording.output = function()
    finally:
        _current = None
    return recording


def opaque(function: Callable[[], Tensor], again: Callable[[], Callable[[], Tensor]]) -> Tensor:
    """Run ``function``; where something is being recorded, as one kernel.

    Args:
        again: after the call, makes the function that a replay calls, of what the kernel was captured with.
    """
    if _current is None:
        return function()
    with _current.paused():
        output = function()
    _current.recording.nodes.append(Call(again(), output))
    return output


class _Operations(TorchDispatchMode):
    """Writes down every operation that writes memory; views need no kernel."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording, self.listening = recording, True

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        result = func(*args, **options)
        if self.listening:
            outputs = _tensors(result)
            self._note(Operation(func, args, options, outputs, _fresh((args, options), outputs)))
        return result

    def _note(self, operation: Operation) -> None:
        if _waits(operation):
            self.recording.waits.append(operation.name)
        writes = operation.function._schema.is_mutable or operation.name.startswith(_COLLECTIVE)
        if writes or any(operation.fresh):
            self.recording.nodes.append(operation)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.listening = False
        try:
            yield
        finally:
            self.listening = True


class _Methods(TorchFunctionMode):
    """Notices the methods that are no operation on a CPU."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if self.operations.listening and name in WAITING_METHODS:
            self.operations.recording.waits.append(name)
        return func(*args, **(kwargs or {}))


def _wait(result: Any) -> None:
    """Until the ranks are done: a collective operation also returns what it is waited for by."""
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.ScriptObject):
            work: Any = leaf
            work.wait()


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _fresh(inputs: Any, outputs: list[Tensor]) -> list[bool]:
    """Which outputs are not memory of an input."""
    given = {tensor.untyped_storage()._cdata for tensor in _tensors(inputs)}
    return [output.untyped_storage()._cdata not in given for output in outputs]


def _waits(operation: Operation) -> bool:
    if operation.name.startswith(("aten::index", "aten::index_put")) and len(operation.args) > 1:
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(operation.args[1]))
    if operation.name == "aten::repeat_interleave":
        return operation.options.get("output_size") is None
    return operation.name.startswith(WAITING_OPERATIONS)
