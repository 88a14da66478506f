"""What SGLang's graph runners need to capture and to replay on a CPU, besides themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fake_graph.orders import Orders, Report
from fake_graph.recording import Recording, opaque, record

WARM_UPS = 2
"""Runs before a capture, as before a real one."""


class FakeGraphs:
    """The graphs of one runner, one for each captured batch. Its methods are those of SGLang's graph backends."""

    def __init__(self, runner: Any, kind: str, orders: Orders, report: Report) -> None:
        self._runner, self._kind, self._orders, self._report = runner, kind, orders, report
        self._graphs: dict[Any, Recording] = {}

    @contextmanager
    def capture_session(self, stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def replay_session(self) -> Iterator[None]:
        yield

    def can_run(self, forward_batch: Any, shape_key: Any) -> bool:
        return shape_key in self._graphs

    def cleanup(self) -> None:
        self._graphs.clear()

    def capture_one(
        self, shape_key: Any, forward_fn: Callable[[], Any], capture_inputs: Any = None, post_warmup_hook: Any = None
    ) -> None:
        for _ in range(WARM_UPS):
            forward_fn()
        graph = self._graphs[shape_key] = record(forward_fn)
        self._report.captured[self._kind, shape_key.size] = len(graph.nodes)
        self._report.waits += [f"{self._kind} {shape_key.size}: {name}" for name in graph.waits]

    def replay(self, shape_key: Any, static_forward_batch: Any, **options: Any) -> Any:
        graph, dropped = self._graphs[shape_key], self._orders.dropped
        self._report.replays[self._kind, self._runner.raw_bs, shape_key.size] += 1
        self._report.dropped += sum(node.name == dropped for node in graph.nodes)
        return graph.replay(dropped)


def capture(draft_worker: Any, orders: Orders, report: Report) -> None:
    """Have the draft worker's graphs captured by SGLang's own runners, or none where none are ordered."""
    from sglang.srt.model_executor.runner import decode_cuda_graph_runner as parent
    from sglang.srt.speculative import eagle_draft_cuda_graph_runner as draft
    from sglang.srt.speculative import eagle_draft_extend_cuda_graph_runner as extend

    draft_worker.cuda_graph_runner = draft_worker.cuda_graph_runner_for_draft_extend = None
    if not orders.batches:
        return
    if draft_worker.draft_runner.graph_shared_output is None:
        draft_worker.draft_runner.graph_shared_output = SimpleNamespace(
            get_logits_buffer=lambda vocabulary, rows: torch.zeros(rows, vocabulary)
        )
    with mock.patch.object(parent, "graph_capture", _no_stream):
        draft_worker.cuda_graph_runner = _runner(
            draft, draft.EAGLEDraftCudaGraphRunner, "draft", draft_worker, orders, report
        )
        draft_worker.cuda_graph_runner_for_draft_extend = _runner(
            extend, extend.EAGLEDraftExtendCudaGraphRunner, "extend", draft_worker, orders, report
        )


def _runner(module: Any, runner: Any, kind: str, draft_worker: Any, orders: Orders, report: Report) -> Any:
    with (
        mock.patch.object(module, "resolve_decode_backend", lambda runner: FakeGraphs(runner, kind, orders, report)),
        mock.patch.object(module, "get_batch_sizes_to_capture", return_value=(list(orders.batches), [])),
    ):
        return runner(draft_worker)


@contextmanager
def _no_stream(*args: Any, **options: Any) -> Iterator[Any]:
    yield SimpleNamespace(stream=None)


def make_attention_opaque() -> None:
    """Attention becomes one kernel in a recording.

    It reads lengths and places that SGLang prepares outside of the graph, before each replay: those of the backend,
    which a replay finds there, and tensors of the batch, whose memory is the same at every replay.
    """
    from sglang.srt.layers.attention.intel_amx_backend import IntelAMXAttnBackend, IntelAMXMultiStepDraftBackend
    from sglang.srt.layers.attention.triton_backend import TritonAttnBackend

    for backend in (IntelAMXAttnBackend, TritonAttnBackend):
        for name in ("forward_decode", "forward_extend"):
            setattr(backend, name, _opaque(getattr(backend, name), keeps_metadata=backend is TritonAttnBackend))
    # The backend for CPUs has no graphs; what its metadata would be made of is what it makes eagerly.
    for backend in (IntelAMXAttnBackend, IntelAMXMultiStepDraftBackend):
        backend.init_cuda_graph_state = lambda self, *args, **options: None
        backend.init_forward_metadata_in_graph = lambda self, forward_batch: None
    IntelAMXAttnBackend.get_cuda_graph_seq_len_fill_value = lambda self: 1
    IntelAMXAttnBackend.init_forward_metadata_out_graph = _extend_metadata
    IntelAMXMultiStepDraftBackend.init_forward_metadata_out_graph = lambda self, forward_batch, in_capture=False: (
        self.init_forward_metadata(forward_batch)
    )


def _opaque(inner: Callable[..., Tensor], keeps_metadata: bool) -> Callable[..., Tensor]:
    """A forward function of a backend, as one kernel.

    Args:
        keeps_metadata: the backend's metadata at capture are views of memory that is filled for each replay, and a
            kernel keeps them; otherwise they are made anew for each replay.
    """

    def forward(
        self: Any, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, *args: Any, **options: Any
    ) -> Tensor:
        def now() -> Tensor:
            return inner(self, q, k, v, layer, forward_batch, *args, **options)

        def again() -> Callable[[], Tensor]:
            # SGLang's draft loop gives the batch other places to write to, step by step.
            places, lengths = forward_batch.out_cache_loc, forward_batch.seq_lens
            metadata = self.forward_metadata

            def replayed() -> Tensor:
                forward_batch.out_cache_loc, forward_batch.seq_lens = places, lengths
                if keeps_metadata:
                    self.forward_metadata = metadata
                return now()

            return replayed

        return opaque(now, again)

    return forward


def _extend_metadata(backend: Any, forward_batch: Any, in_capture: bool = False) -> None:
    """Metadata of a draft extend, whose rows are all as wide as the tree; the runner describes the batch by its whole
    static memory."""
    batch = forward_batch.batch_size
    width = backend.num_draft_tokens
    backend.init_forward_metadata(
        SimpleNamespace(
            batch_size=batch,
            forward_mode=forward_batch.forward_mode,
            spec_info=forward_batch.spec_info,
            seq_lens=forward_batch.seq_lens[:batch],
            out_cache_loc=forward_batch.out_cache_loc,
            extend_seq_lens=torch.full((batch,), width, dtype=torch.int32),
            extend_start_loc=torch.arange(0, batch * width, width, dtype=torch.int32),
        )
    )
