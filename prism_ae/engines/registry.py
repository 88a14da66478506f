"""Which engines there are, and what identifies their numbers. Imports no engine, so a plan can ask it cheaply.

An engine's version is part of every cell's identity: raise it whenever its numbers may change, and only then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.cells import EXACT
from prism_ae.decoding.verifier import VERIFIER
from prism_ae.errors import MissingError, UsageError
from prism_ae.hub.settings import number_problems
from prism_ae.sglang_prism.version import SGLANG_VERSION
from prism_ae.suites.compat import EAGLE3_CONFIG_ROPE, serving_only

if TYPE_CHECKING:
    from prism_ae.cells import Point
    from prism_ae.engines.protocol import Engine
    from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultSource:
    """Where results come from, and what identifies their numbers.

    Attributes:
        version: of its numbers.
        verifier: name of its verification rule.
        uses_common_random_numbers: whether a question's text is the same for every drafter at every temperature,
            because its randomness belongs to the question.
        runs_models: whether it runs the checkpoints that it is given; else nothing is asked of what is in them.
    """

    name: str
    version: str
    verifier: str
    uses_common_random_numbers: bool = False
    runs_models: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineRecord(ResultSource):
    """An engine. ``load`` imports it and returns its constructor ``(suite, models_dir, device, threads)``."""

    runs_models: bool = True
    load: Callable[[], Callable[[Suite, Path, str, int], Engine]]


def _torch() -> Callable[[Suite, Path, str, int], Engine]:
    from prism_ae.engines.torch_engine import TorchEngine

    return TorchEngine


def _sglang() -> Callable[[Suite, Path, str, int], Engine]:
    from prism_ae.engines.sglang.engine import SGLangEngine

    return SGLangEngine


ENGINES = {
    record.name: record
    for record in (
        EngineRecord(name="torch", version="torch-4", verifier=VERIFIER, uses_common_random_numbers=True, load=_torch),
        EngineRecord(name="sglang", version=f"sglang-3/{SGLANG_VERSION}", verifier="sglang-tree-1", load=_sglang),
    )
}
"""What measures, of this package."""

ARTIFACT = ResultSource(name="artifact", version="artifact-1", verifier="eagle-2")
"""The authors' results, which are imported."""

GROUP = "prism_ae.engines"
"""Entry points of other packages, each an `EngineRecord` under its name: their engines can be asked for, and are not
offered."""


def engine_names() -> tuple[str, ...]:
    """The engines a user is offered."""
    return tuple(ENGINES)


def find(name: str) -> ResultSource:
    """An engine's record, or that of imported results; raises UsageError for an unknown name."""
    for record in (*ENGINES.values(), ARTIFACT):
        if record.name == name:
            return record
    for entry_point in metadata.entry_points(group=GROUP, name=name):
        return entry_point.load()
    raise UsageError(f"there is no engine '{name}'", f"engines: {', '.join(engine_names())}")


def identify(name: str) -> tuple[str, str]:
    """Version and verifier of an engine that can be started here.

    Raises:
        UsageError: unknown name.
        MissingError: what it needs is not installed.
    """
    record = find(name)
    if name == "sglang":
        _require_sglang()
    return record.version, record.verifier


def check_environment(name: str, environ: Mapping[str, str]) -> None:
    """Raises UsageError where a variable would end the engine while it starts. What it measured can be read."""
    if name == "sglang" and (problems := number_problems(environ, "huggingface")):
        raise UsageError("; ".join(problems), "until then SGLang cannot start: it imports Hugging Face's client")


def _require_sglang() -> None:
    """SGLang, in the version that the plugin is made for, and this package where SGLang finds its plugins."""
    hint = "run 'make setup' (CPU), or install prism-ae[gpu] (GPU)"
    try:
        found = metadata.version("sglang")
    except metadata.PackageNotFoundError:
        raise MissingError(f"SGLang {SGLANG_VERSION} is not installed", hint) from None
    if found != SGLANG_VERSION:
        raise MissingError(f"SGLang {found} is installed, and the plugin is made for {SGLANG_VERSION}", hint)
    if not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"):
        raise MissingError("prism-ae runs without being installed, so SGLang cannot find its plugin", hint)


def problem(engine: str, point: Point, drafter_kind: str) -> str:
    """Why an engine cannot measure a point, or ""; decided without models or devices.

    Args:
        drafter_kind: `suites.records.DrafterRecord.kind` of the point's drafter.
    """
    if engine == ARTIFACT.name:
        return "results of the engine artifact are imported, not measured, and this one was not ('prism-ae import')"
    if engine == "sglang" and EAGLE3_CONFIG_ROPE in point.compat:
        return f"the engine sglang gives EAGLE-3 the RoPE base it was trained with alone ({EAGLE3_CONFIG_ROPE})"
    if engine == "sglang" and drafter_kind == "lookup":
        return (
            "the engine sglang does not draft by prompt lookup: SGLang's own (NGRAM) is another, with trees from the "
            "texts of all requests; it needs SGLang's compiled kernels, and is not driven here yet"
        )
    if engine != "torch":
        return ""
    if drafter_kind == "model":
        return "the engine torch drafts with draft heads only, not with a model of its own"
    if point.drafting != EXACT:
        return f"the engine torch has one way of drafting, exact, not {point.drafting}"
    if serving := serving_only(point.compat):
        return f"the engine torch imitates none of the authors' serving choices ({', '.join(serving)})"
    return ""


def make(name: str, suite: Suite, models_dir: Path, device: str, threads: int) -> Engine:
    """Start an engine.

    Args:
        device: "cpu" or "cuda:0"; a worker sees its own GPU alone, through CUDA_VISIBLE_DEVICES.
        threads: of the CPU.

    Raises:
        UsageError: unknown name, or one of results that are imported.
        DeviceError: the device cannot be used.
    """
    record = find(name)
    if not isinstance(record, EngineRecord):
        raise UsageError(f"{name} measures nothing", "its results come from 'prism-ae import'")
    return record.load()(suite, models_dir, device, threads)
