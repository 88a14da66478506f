"""Training a small target from scratch: a Llama that answers the corpus' questions.

The mini suite needs a target whose pass over a draft tree costs little more than over one token, hence deep and
narrow, and one that copies from its prompt and knows some facts, so that its text is neither noise nor trivial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.recipes.file import Shape, TargetTraining
from prism_ae.training.examples import Example, ExampleBatch, collate, order
from prism_ae.training.muon import Muon

Tick = Callable[[int, float], None]
"""Called after each step with 1 and the step's loss."""

_EPS = 1e-5


def target_config(shape: Shape, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=_EPS,
        rope_theta=shape.rope_theta,
        max_position_embeddings=shape.window,
    )


def new_target(config: LlamaConfig, embedding_std: float, seed: int) -> Llama:
    """Random weights: variance 1 / inputs, what is added to the residual smaller with depth, a wide embedding.

    A wide embedding lets attention tell tokens apart from the start: copying from the prompt emerges early.
    """
    torch.manual_seed(seed)
    target = Llama(config)
    depth = math.sqrt(2 * config.num_hidden_layers)
    for name, parameter in target.named_parameters():
        if parameter.dim() == 2:
            added = name.endswith(("attention.o.weight", "mlp.down.weight"))
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5 / (depth if added else 1))
    nn.init.normal_(target.embedding.weight, std=embedding_std)
    return target


def training_steps(examples: int, training: TargetTraining) -> int:
    return -(-examples // training.rows)


def train_target(target: Llama, examples: Sequence[Example], training: TargetTraining, tick: Tick) -> None:
    """One pass over ``examples``. Muon for the layers' matrices, AdamW for the rest; the rate rises, stays, falls."""
    matrices = [parameter for parameter in target.layers.parameters() if parameter.dim() == 2]
    chosen = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in target.parameters() if id(parameter) not in chosen]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    batches = order([len(example.ids) for example in examples], training.rows, f"{training.seed} target")
    for number, rows in enumerate(batches):
        loss = weighted_loss(target, collate([examples[row] for row in rows]), training.prompt_weight)
        loss.backward()
        nn.utils.clip_grad_norm_(target.parameters(), training.clip)
        rate = schedule(number, len(batches), training.warmup, training.decay)
        muon.rate = training.matrix_learning_rate * rate
        for group in adam.param_groups:
            group["lr"] = training.learning_rate * rate
        muon.step()
        adam.step()
        adam.zero_grad()
        tick(1, loss.item())


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Part of the full rate at ``step`` of ``steps``: up in ``warmup`` steps, down in the last ``decay`` of all."""
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, decay * steps))


def weighted_loss(target: Llama, batch: ExampleBatch, prompt_weight: float) -> Tensor:
    """Mean cross-entropy of the next token, nats; a prompt's token counts ``prompt_weight``, padding nothing."""
    hidden, goal, answer = _predictions(target, batch)
    weight = torch.where(answer, 1.0, prompt_weight)
    return (F.cross_entropy(target.head(hidden), goal, reduction="none") * weight).sum() / weight.sum()


def _predictions(target: Llama, batch: ExampleBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states before real tokens [n, H], the tokens [n], and whether they belong to an answer [n]."""
    positions = torch.arange(batch.ids.shape[1] - 1)[None]
    hidden, _ = target(batch.ids[:, :-1], positions)
    real = positions < (batch.lengths - 1)[:, None]
    return hidden[real], batch.ids[:, 1:][real], batch.answer[:, 1:][real]


@torch.no_grad()
def answer_quality(target: Llama, examples: Sequence[Example], rows: int = 32) -> dict[str, float]:
    """Over the answers' tokens: mean negative log-likelihood and entropy (nats), share of right best guesses."""
    nll = entropy = right = count = 0.0
    by_length = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(examples), rows):
        hidden, goal, answer = _predictions(target, collate(by_length[start : start + rows]))
        log_p = target.head(hidden[answer]).log_softmax(-1)
        nll += F.nll_loss(log_p, goal[answer], reduction="sum").item()
        entropy -= (log_p.exp() * log_p).sum().item()
        right += (log_p.argmax(-1) == goal[answer]).sum().item()
        count += log_p.shape[0]
    return {"nll": nll / count, "entropy": entropy / count, "top1": right / count}
