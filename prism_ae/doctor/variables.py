"""Variables that change what a run computes or how fast, as a table. Whatever a run sets itself is only noted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from prism_ae.devices.slots import plan_slots
from prism_ae.devices.visible import Found
from prism_ae.doctor.findings import Finding, Level, listed, ok, shown, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.engines.sglang.server import PLUGIN
from prism_ae.sglang_prism.refusals import falsifying_variables

_OFF = frozenset({"", "0", "false", "no", "off", "none", "n", "f"})


def switched_on(value: str) -> bool:
    """Whether a switch of this value is on, as the programs that read it take it."""
    return value.strip().casefold() not in _OFF


def said(value: str) -> bool:
    """Whether there is any value."""
    return bool(value.strip())


@dataclasses.dataclass(frozen=True)
class Rule:
    """Variables of one kind.

    Attributes:
        names: exact names, or beginnings that end with "*".
        effect: what it does to a run, a clause.
        matters: whether a value has that effect.
        level: of the finding.
        remedy: "" for "unset NAME".
    """

    names: tuple[str, ...]
    effect: str
    matters: Callable[[str], bool] = switched_on
    level: Level = "warning"
    remedy: str = ""

    def about(self, name: str) -> bool:
        return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in self.names)


RULES = (
    Rule(
        ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", "PYTORCH_JIT_DISABLE"),
        "nothing is compiled, so SGLang is slower than it is elsewhere",
    ),
    Rule(("PYTORCH_JIT",), "TorchScript is switched off, so SGLang is slower", lambda value: not switched_on(value)),
    Rule(("CUDA_LAUNCH_BLOCKING",), "every kernel is waited for: speeds are not those of this GPU"),
    Rule(("TORCH_USE_CUDA_DSA", "TORCH_SHOW_CPP_STACKTRACES"), "torch checks and records more than in a measurement"),
    Rule(("PYTORCH_NO_CUDA_MEMORY_CACHING",), "every tensor is allocated by the driver: speeds fall many times over"),
    Rule(
        ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"),
        "GPU memory is managed otherwise than by default: it may run out earlier or later",
        said,
    ),
    Rule(
        ("TORCH_LOGS", "TORCH_DISTRIBUTED_DEBUG", "TORCHINDUCTOR_TRACE", "TORCH_TRACE"),
        "torch writes a protocol while it computes: timed cells are slower",
        said,
    ),
    Rule(
        ("TORCH_COMPILE_DEBUG", "TORCH_COMPILE_DEBUG_DIR", "TORCHINDUCTOR_MAX_AUTOTUNE*"),
        "torch compiles otherwise than by default",
        said,
    ),
    Rule(
        ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
        "float32 is computed in other precision than asked for, and texts may differ",
        said,
    ),
    Rule(("CUBLAS_WORKSPACE_CONFIG",), "cuBLAS takes other kernels than by default: speeds may differ", said),
    Rule(("CUDA_DEVICE_MAX_CONNECTIONS",), "the GPU's queues are limited: speeds may differ", said),
    Rule(
        ("NCCL_DEBUG",),
        "NCCL writes a protocol while it computes",
        lambda value: said(value) and value.strip().upper() not in ("VERSION", "WARN"),
    ),
    Rule(("TRITON_INTERPRET",), "Triton's kernels are interpreted, thousands of times slower"),
    Rule(("TRITON_DEBUG",), "Triton's kernels check themselves: speeds fall"),
    Rule(
        ("CUDA_INJECTION64_PATH", "CUDA_INJECTION32_PATH", "NVTX_INJECTION64_PATH", "KINETO_USE_DAEMON"),
        "a profiler is attached to every process: speeds fall",
        said,
    ),
    Rule(
        ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
        "the CPU's kernels are other ones than this CPU would be given: numbers and speeds may differ",
        said,
    ),
    Rule(("ONEDNN_VERBOSE", "DNNL_VERBOSE", "MKL_VERBOSE"), "a line is written for every operation: speeds fall"),
    Rule(
        (
            *("OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_SCHEDULE"),
            *("GOMP_*", "KMP_*", "MKL_DYNAMIC", "MKL_DOMAIN_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        ),
        "it holds in each worker as well: several workers may be bound to the same cores",
        said,
    ),
    Rule(
        ("LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES"),
        "a library is put into every process, and may replace memory, threads or CUDA",
        said,
    ),
    Rule(("MALLOC_PERTURB_", "MALLOC_CHECK_"), "memory is allocated otherwise than by default"),
    Rule(
        ("PYTHONMALLOC",),
        "Python's memory is checked or allocated otherwise: timed cells are slower",
        lambda value: said(value) and value not in ("pymalloc", "default"),
    ),
    Rule(
        ("PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONPROFILEIMPORTTIME", "PYTHONASYNCIODEBUG", "PYTHONDUMPREFS"),
        "Python watches itself: timed cells are slower",
    ),
    Rule(("PYTHONWARNINGS",), "warnings may become errors in libraries", lambda value: "error" in value.casefold()),
    Rule(("PYTHONHOME",), "Python takes its own library from there, whatever environment is chosen", said),
    Rule(("PYTHONINSPECT",), "Python waits for input at the end of a command instead of ending"),
    Rule(
        ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
        "a launcher of distributed jobs set it, and torch's processes take it as meant for them",
        said,
        remedy="start prism-ae itself, not by torchrun, accelerate or mpirun; --gpus spreads the work",
    ),
    Rule(("SGLANG_USE_CPU_ENGINE",), "a server of your own runs SGLang's CPU engine, also where there are GPUs"),
    Rule(("PRISM_AE_DRAFTING",), "it sets the draft loop of servers of your own; a run sets its own", said),
)


def check(snapshot: Snapshot) -> list[Finding]:
    """Findings about the variables that are set."""
    return judge_variables(snapshot.variables, overridden=_set_by_a_run())


def judge_variables(variables: Mapping[str, str], overridden: Iterable[str]) -> list[Finding]:
    """Pure.

    Args:
        overridden: names that every worker is given a value of its own for.
    """
    findings = [*_sglang(variables)]
    own = set(overridden)
    for name, value in sorted(variables.items()):
        for rule in RULES:
            if rule.about(name) and name not in own and rule.matters(value):
                findings.append(
                    Finding(name, rule.level, f"{name}={shown(value)}: {rule.effect}", rule.remedy or f"unset {name}")
                )
    ignored = sorted(name for name in own if said(variables.get(name, "")) and not name.startswith("CUDA_"))
    for name in ignored:
        findings.append(ok(name, f"{name}={shown(variables[name])} is not used: a run gives each worker its own"))
    return findings or [ok("variables", "no variable is set that would change a measurement")]


def _set_by_a_run() -> list[str]:
    """The names that a worker's environment has its own values for."""
    [slot] = plan_slots(None, 1, 1, "", lambda: Found({}))
    return list(slot.environment)


def _sglang(variables: Mapping[str, str]) -> list[Finding]:
    """SGLang's own variables: those that simulate, the choice of plugins, and all others."""
    falsifying = falsifying_variables(variables)
    findings = [
        warning(
            name,
            f"{name}={shown(variables[name])} makes SGLang simulate results or fail on purpose: a run takes it away, "
            "a server of your own obeys it",
            f"unset {name}",
        )
        for name in falsifying
    ]
    plugins = variables.get("SGLANG_PLUGINS", "")
    if said(plugins):
        names = [name.strip() for name in plugins.split(",")]
        if PLUGIN in names:
            findings.append(ok("SGLANG_PLUGINS", f"SGLANG_PLUGINS={shown(plugins)} names {PLUGIN}"))
        else:
            findings.append(
                warning(
                    "SGLANG_PLUGINS",
                    f"SGLANG_PLUGINS={shown(plugins)} leaves {PLUGIN} out: a server of your own does not know PRISM",
                    f"unset SGLANG_PLUGINS, or add {PLUGIN} to it; 'prism-ae serve' and 'run' see to it themselves",
                )
            )
    ruled = {"SGLANG_PLUGINS", *falsifying}
    others = sorted(
        name
        for name, value in variables.items()
        if name.startswith(("SGLANG_", "SGL_"))
        and name not in ruled
        and said(value)
        and not any(rule.about(name) for rule in RULES)
    )
    if others:
        findings.append(
            warning(
                "SGLang's variables",
                f"set, and obeyed by SGLang also in a measurement: {listed(others)}",
                f"unset {' '.join(others)}",
            )
        )
    return findings
