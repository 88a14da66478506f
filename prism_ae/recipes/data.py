"""The part of a recipe file that says which conversations a target writes for the training of its drafters."""

from __future__ import annotations

from typing import Any, Literal

from prism_ae.errors import ConfigError
from prism_ae.io.digests import plain
from prism_ae.io.schema import record
from prism_ae.suites.records import Template

WRITER_VERSION = 1
"""Raised whenever the writer's code would make other conversations of the same recipe."""


@record
class TurnRecipe:
    """One side of the conversations.

    Attributes:
        temperature: 0 is greedy.
        min_tokens: a shorter turn is dropped.
        max_tokens: most tokens that are written, the end token included. A user turn that has not ended by then is
            dropped, an answer is kept as cut.
        max_repeated: a turn with a larger share of repeated n-grams is dropped (`filters.repeated_share`).
    """

    temperature: float
    min_tokens: int
    max_tokens: int
    max_repeated: float


@record
class DataRecipe:
    """Conversations that a target writes: user turns from the bare template, then its answers to them.

    Attributes:
        seed: of everything that is sampled.
        unit: answer tokens of training scale 1; scale s has the first ``s * unit`` of the data.
        dtype: that the target computes in.
        rows: sequences decoded together. In half precision they decide roundings, so they are part of the recipe.
        attempts: user turns that are begun for a shard, a multiple of ``rows`` keeps all rows in use.
        ngram: tokens of what counts as repeated.
    """

    seed: int
    unit: int
    dtype: Literal["float32", "bfloat16", "float16"]
    rows: int
    attempts: int
    ngram: int
    user: TurnRecipe
    answer: TurnRecipe

    def answer_tokens(self, scale: float) -> int:
        """Answer tokens of a training scale."""
        return round(scale * self.unit)

    @property
    def content(self) -> dict[str, Any]:
        """What decides the conversations, for a digest: all but how many of them a scale takes."""
        return {"writer": WRITER_VERSION, **{key: value for key, value in plain(self).items() if key != "unit"}}


def check_data_recipe(recipe: DataRecipe, where: str) -> None:
    """Raises ConfigError for numbers that no data can be written with; ``where`` names the file and the table."""
    for key in ("unit", "rows", "attempts", "ngram"):
        if getattr(recipe, key) < 1:
            raise ConfigError(f"{where}.{key}: must be at least 1, got {getattr(recipe, key)}")
    for side, turn in (("user", recipe.user), ("answer", recipe.answer)):
        if turn.temperature < 0:
            raise ConfigError(f"{where}.{side}.temperature: must be at least 0, got {turn.temperature:g}")
        if not 1 <= turn.min_tokens <= turn.max_tokens:
            raise ConfigError(
                f"{where}.{side}: min_tokens {turn.min_tokens} and max_tokens {turn.max_tokens} leave no length"
            )
        if not 0 <= turn.max_repeated <= 1:
            raise ConfigError(f"{where}.{side}.max_repeated: must be from 0 to 1, got {turn.max_repeated:g}")
    if recipe.user.temperature == 0:
        raise ConfigError(f"{where}.user.temperature: at 0 all user turns are the same one", "write 1.0")


def data_content(recipe: DataRecipe, target: str, template: Template, system: str) -> dict[str, Any]:
    """Everything that decides a folder of written conversations; its digest is part of the folder's name.

    Args:
        target: fingerprint of its folder.
    """
    return {"recipe": recipe.content, "target": target, "template": plain(template), "system": system}
