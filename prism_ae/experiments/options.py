"""What a user may ask differently from what an experiment's file says."""

from __future__ import annotations

import dataclasses

from prism_ae.cells import TreeShape


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of one run; () and None mean "as the experiment says".

    Attributes:
        benches, scales, drafters: names of the suite's records. ``drafters`` replaces the experiment's.
        targets: names or roles.
        questions: the first n of each benchmark.
        trees: draft trees.
        controls: whether the equal-budget controls are added; None: as the suite says, and none
            beside ``drafters``.
        batch_sizes: for experiments that measure time.
        drafting: "exact", "stock" or "both", for the engine that knows both.
        dtype: "float32", "bfloat16" or "float16", instead of the suite's.
        al: "macro" or "micro", the acceptance length that is drawn and judged.
        count: "authors" counts acceptance as the authors' evaluation does; None as it is.
        paper_compat: imitate the authors' runs (`prism_ae.suites.compat`).
        seeds: training seeds of drafters that are trained here, where acceptance is measured.
        repeats: how often times are measured; None: as the suite says.
    """

    benches: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    drafters: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()
    questions: int | None = None
    trees: tuple[TreeShape, ...] = ()
    engine: str | None = None
    controls: bool | None = None
    batch_sizes: tuple[int, ...] = ()
    drafting: str | None = None
    dtype: str | None = None
    al: str | None = None
    count: str | None = None
    paper_compat: bool = False
    seeds: int = 1
    repeats: int | None = None

    def described(self) -> str:
        """The choices that differ from the experiment's file, for captions; "" if there is none."""
        said = [
            f"{option} {','.join(str(value) for value in values)}"
            for option, values in (
                ("--benches", self.benches),
                ("--scales", self.scales),
                ("--targets", self.targets),
                ("--drafters", self.drafters),
                ("--temperatures", tuple(f"{value:g}" for value in self.temperatures)),
            )
            if values
        ]
        said += [f"--questions {self.questions}"] if self.questions is not None else []
        said += [f"--tree {tree}" for tree in self.trees]
        said += [f"--engine {self.engine}"] if self.engine is not None else []
        said += [] if self.controls is None else ["--controls" if self.controls else "--no-controls"]
        said += [f"--batch-size {size}" for size in self.batch_sizes]
        said += [f"--drafting {self.drafting}"] if self.drafting is not None else []
        said += [f"--dtype {self.dtype}"] if self.dtype is not None else []
        said += [f"--al {self.al}"] if self.al is not None else []
        said += [f"--count {self.count}"] if self.count is not None else []
        said += ["--paper-compat"] if self.paper_compat else []
        said += [f"--seeds {self.seeds}"] if self.seeds != 1 else []
        said += [f"--repeats {self.repeats}"] if self.repeats is not None else []
        return " ".join(said)
