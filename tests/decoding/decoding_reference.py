"""Speculative decoding by definition: no cache, no batch, no mask. Everything is computed again for every path."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding.sampling import question_uniforms
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import Llama, causal

Path = tuple[int, ...]


@dataclasses.dataclass
class Draft:
    """A tree as the set of paths it verifies. ``margin``: score gap between the worst taken and the best left, and
    between what made it into a beam and what did not; a tie where it is tiny."""

    paths: set[Path]
    margin: float


class Reference:
    def __init__(self, target: Llama, drafter: Drafter, shape: TreeShape) -> None:
        self.target, self.drafter, self.shape = target, drafter, shape

    def features(self, tokens: list[int]) -> tuple[Tensor, Tensor]:
        """Last hidden states [n, H] and what the drafter reads of them [n, F]."""
        ids = torch.tensor([tokens])
        positions = torch.arange(len(tokens))[None]
        hidden, aux_hidden = self.target(ids, positions, causal, self.drafter.config.aux_hidden_layers)
        return hidden[0], hidden[0] if aux_hidden is None else aux_hidden[0]

    def draft_scores(self, tokens: list[int], path: Path) -> Tensor:
        """Log-probabilities over the draft vocabulary after ``tokens`` (root last) and then ``path``."""
        drafter, last = self.drafter, len(tokens) - 2
        _, features = self.features(tokens[:-1])
        memory: dict[int, tuple[Tensor, Tensor]] = {}

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            """Attend to the memory and to ``key`` itself; one position at a time, softmax written out."""
            if layer in memory:
                key, value = (torch.cat(pair, dim=2) for pair in zip(memory[layer], (key, value), strict=True))
            memory[layer] = key, value
            group = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
            out = torch.empty_like(query)
            context = key.shape[2] - query.shape[2]
            for place in range(query.shape[2]):
                seen = context + place + 1
                weights = (query[:, :, place : place + 1] @ key[:, :, :seen].mT / query.shape[-1] ** 0.5).softmax(-1)
                out[:, :, place : place + 1] = weights @ value[:, :, :seen]
            return out

        def run(step: int, ids: list[int], hidden: Tensor, first: int) -> Tensor:
            rotation = drafter.rotary(torch.arange(first, first + len(ids))[None])
            return drafter.step(step, drafter.embed(torch.tensor([ids])), hidden, rotation, attend)

        out = run(0, tokens[1:], drafter.project_hidden(features[None]), 0)[:, -1:]
        for step, token in enumerate(path, start=1):
            out = run(step, [token], out, last + step)
        return drafter.logits(out)[0, 0].log_softmax(-1)

    def draft(self, tokens: list[int]) -> Draft:
        """The dynamic draft tree after ``tokens``, root last."""
        steps, branch, count = self.shape.steps, self.shape.branch, self.shape.verified - 1
        scores: dict[Path, float] = {}
        beam: list[Path] = [()]
        margin = float("inf")
        for _ in range(steps):
            level: dict[Path, float] = {}
            for path in beam:
                gains = self.draft_scores(tokens, path)
                best = gains.sort(descending=True)
                margin = min(margin, float(best.values[branch - 1] - best.values[branch]))
                for gain, draft_id in zip(best.values[:branch], best.indices[:branch], strict=True):
                    token = int(self.drafter.token_ids(draft_id))
                    level[*path, token] = scores.get(path, 0.0) + float(gain)
            ranked = sorted(level, key=lambda path: -level[path])
            scores |= level
            beam = ranked[:branch]
            if len(ranked) > branch:
                margin = min(margin, level[ranked[branch - 1]] - level[ranked[branch]])
        ranked = sorted(scores, key=lambda path: -scores[path])
        if len(ranked) > count:
            margin = min(margin, scores[ranked[count - 1]] - scores[ranked[count]])
        return Draft(set(ranked[:count]), margin)

    def next_token(self, tokens: list[int], temperature: float, number: float) -> int:
        logits = self.target.head(self.features(tokens)[0][-1])
        if temperature == 0:
            return int(logits.argmax())
        total = 0.0
        probabilities = (logits.double() / temperature).softmax(-1).tolist()
        for token, probability in enumerate(probabilities):
            total += probability
            if total > number:
                return token
        return len(probabilities) - 1

    def answer(
        self, prompt: list[int], count: int, temperature: float, seed: int, question_id: str
    ) -> tuple[list[int], list[int], list[Draft]]:
        """At least ``count`` tokens, the accepted drafts of each round, and each round's tree."""
        numbers = question_uniforms(seed, question_id, 0, count + self.shape.steps + 1).tolist()
        answer = [self.next_token(prompt, temperature, numbers[0])]
        accepted, drafts = [], []
        while len(answer) < count:
            draft = self.draft(prompt + answer)
            path: Path = ()
            while True:
                at = len(answer) + len(path)
                token = self.next_token(prompt + answer + list(path), temperature, numbers[at])
                if (*path, token) not in draft.paths:
                    break
                path = (*path, token)
            answer += [*path, token]
            accepted.append(len(path))
            drafts.append(draft)
        return answer, accepted, drafts
