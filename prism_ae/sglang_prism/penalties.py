"""Penalties that count every token, and along the draft tree.

SGLang's verification gives every node of a tree the penalties of the text before the round, counts one token of each
round, and counts rounds where ``min_new_tokens`` means tokens. Here a node gets the penalties that the target would get
there without drafts: those of all output tokens before it, including the ones on its path through the tree. At
temperature 0 the text is then the one without drafts.

Without drafts SGLang's overlapped scheduler counts each token one step late; what is matched here is its scheduler
without overlap, and the definition: frequency penalty times count, presence penalty where counted, repetition penalty
as a factor where counted, end tokens barred until ``min_new_tokens``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Penalties:
    """The penalties that B requests ask for, and the tokens they have written.

    Attributes:
        frequency, presence, repetition: [B, 1, 1]; 0, 0 and 1 have no effect.
        least: ``min_new_tokens`` [B, 1].
        ends: [B, V], the tokens that are barred until that many are written.
        counts: [B, V], how often each token was written.
        lengths: [B, 1], tokens written.
    """

    frequency: Tensor
    presence: Tensor
    repetition: Tensor
    least: Tensor
    ends: Tensor
    counts: Tensor
    lengths: Tensor

    def at(self, paths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The terms to add to the logits of each node, and the factors for `scale`.

        Args:
            paths: bool [B, n, n]; whether node j is on node i's path, itself included, the root not: the root is the
                last token written.
            tokens: int64 [B, n], of the nodes.

        Returns:
            float32 [B, n, V] each.
        """
        rows, nodes = tokens.shape
        counts = self.counts.unsqueeze(1).repeat(1, nodes, 1)
        counts.scatter_add_(2, tokens.unsqueeze(1).expand(rows, nodes, nodes), paths.to(counts.dtype))
        seen = counts > 0
        added = -self.frequency * counts - self.presence * seen
        early = self.lengths + paths.sum(dim=-1) < self.least
        added.masked_fill_(early.unsqueeze(-1) & self.ends.unsqueeze(1), float("-inf"))
        return added, torch.where(seen, self.repetition, 1.0)

    def at_the_end(self) -> tuple[Tensor, Tensor]:
        """`at` the end of the texts written: [B, V] each."""
        rows = self.counts.shape[0]
        none = torch.zeros(rows, 1, 1, dtype=torch.bool, device=self.counts.device)
        added, factor = self.at(none, torch.zeros(rows, 1, dtype=torch.int64, device=self.counts.device))
        return added.squeeze(1), factor.squeeze(1)


def scale(logits: Tensor, factor: Tensor) -> Tensor:
    """The repetition penalty: positive logits divided, negative ones multiplied by ``factor``, of the same shape."""
    return torch.where(logits < 0, logits * factor, logits / factor)


def asked(request: Any) -> bool:
    """Whether a request asks for any penalty."""
    wants = request.sampling_params
    return bool(
        wants.frequency_penalty or wants.presence_penalty or wants.repetition_penalty != 1.0 or wants.min_new_tokens > 0
    )


def penalties_of(requests: Sequence[Any], vocabulary: int, device: Any) -> Penalties:
    """The penalties of SGLang's requests, whose ``output_ids`` hold every token written so far."""

    def column(name: str) -> Tensor:
        values = [float(getattr(request.sampling_params, name)) for request in requests]
        return torch.tensor(values, dtype=torch.float32, device=device)

    penalised = [asked(request) for request in requests]
    written = [request.output_ids if wanted else () for request, wanted in zip(requests, penalised, strict=True)]
    return Penalties(
        frequency=column("frequency_penalty").view(-1, 1, 1),
        presence=column("presence_penalty").view(-1, 1, 1),
        repetition=column("repetition_penalty").view(-1, 1, 1),
        least=column("min_new_tokens").view(-1, 1),
        ends=_table([sorted(end_tokens(request)) for request in requests], vocabulary, device) > 0,
        counts=_table(written, vocabulary, device),
        lengths=torch.tensor([[len(request.output_ids)] for request in requests], device=device),
    )


def end_tokens(request: Any) -> set[int]:
    """The tokens that SGLang bars before ``min_new_tokens``, if the request asks for that."""
    if request.sampling_params.min_new_tokens <= 0:
        return set()
    ends = set(request.sampling_params.stop_token_ids or ())
    if request.tokenizer is not None:
        ends |= set(getattr(request.tokenizer, "additional_stop_token_ids", None) or ())
        if request.tokenizer.eos_token_id is not None:
            ends.add(request.tokenizer.eos_token_id)
    return ends


def _table(lists: Sequence[Sequence[int]], vocabulary: int, device: Any) -> Tensor:
    """How often each token is in each list: float32 [len(lists), vocabulary]."""
    rows = [row for row, tokens in enumerate(lists) for token in tokens if 0 <= token < vocabulary]
    columns = [token for tokens in lists for token in tokens if 0 <= token < vocabulary]
    places = torch.tensor([rows, columns], dtype=torch.int64).to(device, non_blocking=True)
    table = torch.zeros(len(lists), vocabulary, dtype=torch.float32, device=device)
    return table.index_put_((places[0], places[1]), torch.ones((), device=device), accumulate=True)


def paths_of(next_token: Tensor, next_sibling: Tensor) -> Tensor:
    """Each node's path from the root (excluded) to itself: bool [B, n, n].

    Args:
        next_token: [B, n], the first child of each node, -1 where there is none; node 0 is the root.
        next_sibling: [B, n], the next child of the same parent.
    """
    nodes = next_token.shape[1]
    numbers = torch.arange(nodes, device=next_token.device)
    first_child = (next_token.unsqueeze(-1) == numbers).float()  # [B, parent, child]
    sibling = (next_sibling.unsqueeze(-1) == numbers).float()
    parent_of = first_child @ _closure(sibling)  # a child's siblings are children, too
    descends = _closure(parent_of).transpose(1, 2) > 0  # [B, node, ancestor or itself]
    descends[:, :, 0] = False
    return descends


def _closure(steps: Tensor) -> Tensor:
    """I + S + S² + … of nilpotent 0-1 matrices [B, n, n], by squaring: 1 where a way leads from row to column."""
    total = steps + torch.eye(steps.shape[-1], device=steps.device)
    for _ in range((steps.shape[-1] - 1).bit_length()):
        total = (total @ total).clamp_(max=1)
    return total


def before_sample(verify_input: Any, batch: Any, logits_output: Any, *args: Any, **options: Any) -> None:
    """Before ``eagle_utils.eagle_sample``: apply the penalties to the nodes' logits, instead of SGLang's own."""
    from prism_ae.sglang_prism.algorithm import NAMES

    info = batch.sampling_info
    if batch.spec_algorithm.name not in NAMES or batch.forward_mode.is_idle():
        return
    if info.acc_additive_penalties is None and info.acc_scaling_penalties is None:
        return
    logits = logits_output.next_token_logits  # [B * n, V], and the log-probabilities are computed from it
    nodes = verify_input.draft_token_num
    penalties = penalties_of(batch.reqs, logits.shape[-1], logits.device)
    paths = paths_of(verify_input.retrieve_next_token, verify_input.retrieve_next_sibling)
    added, factor = penalties.at(paths, verify_input.draft_token.view(-1, nodes).long())
    logits.copy_(scale(logits + added.flatten(0, 1), factor.flatten(0, 1)))
    info.acc_additive_penalties = info.acc_scaling_penalties = None


def after_copy_for_forward(result: Any, info: Any) -> None:
    """After ``SamplingBatchInfo.copy_for_forward``: the penalties at the end of the texts, counted from the texts.

    Prefill samples its token with them: SGLang's own are empty there, even where a preempted request returns with the
    text that it had written.
    """
    from sglang.srt.runtime_context import get_server_args

    from prism_ae.sglang_prism.registration import is_ours

    if result.acc_additive_penalties is None or not is_ours(get_server_args()):
        return
    requests = info.penalizer_orchestrator.reqs()
    penalties = penalties_of(requests, info.vocab_size, result.acc_additive_penalties.device)
    result.acc_additive_penalties, result.acc_scaling_penalties = penalties.at_the_end()


def after_overlap_decision(result: bool, scheduler: Any, batch: Any, *args: Any, **options: Any) -> bool:
    """After ``Scheduler.is_disable_overlap_for_batch``: a round with penalties waits for the last round's tokens."""
    from sglang.srt.runtime_context import get_server_args

    from prism_ae.sglang_prism.registration import is_ours

    waits = (
        bool(batch)
        and is_ours(get_server_args())
        and len(scheduler.result_queue) > 0
        and any(asked(request) for request in batch.reqs)
    )
    return result or waits


HOOKS = [
    ("sglang.srt.speculative.eagle_utils.eagle_sample", before_sample, "before"),
    ("sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.copy_for_forward", after_copy_for_forward, "after"),
    ("sglang.srt.managers.scheduler.Scheduler.is_disable_overlap_for_batch", after_overlap_decision, "after"),
]
"""For every device. `sampling` has a hook around the same function; the order of the two does not matter."""
