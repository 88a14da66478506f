"""What people read when something is wrong, word for word: the one place that holds the sentences.

Other tests pin an error's class, its exit code and what it names. After a change of words, read what changes:

    python tests/cli/test_messages.py && git diff tests/cli/messages.txt
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    import conftest  # noqa: F401 - sets the environment before anything reads it

import torch
from published import CAPTURE, TARGET, change_config, make_drafter, make_target, read_state, write, write_state

from prism_ae import __main__ as entry
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.errors import PrismError
from prism_ae.experiments.load import experiment_folder, parse_experiment
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.prompts.questions import read_questions
from prism_ae.suites import load as suites
from prism_ae.suites.load import parse_suite

GOLDEN = Path(__file__).with_name("messages.txt")

COMMANDS = """
plan figur4 --suite mini
plan figure4 --suite mni
plan figure4 --suite nothing.toml
plan figure4 --suite broken.toml
plan nothing.toml --suite mini
plan
runn
plan figure4 --suite mini --nope
plan figure4 --suite mini --targets llama-4
plan figure4 --suite mini --benches humanevl
plan figure4 --suite mini --scales 3x
plan figure4 --suite mini --drafters prizm
plan figure4 --suite mini --temperatures 0,x
plan figure4 --suite mini --temperatures=-1
plan figure4 --suite mini --questions 0
plan figure4 --suite mini --engine tensorrt
plan figure4 --suite mini --dtype float23
plan figure4 --suite mini --tree 1,2
plan figure4 --suite mini --tree 1,4,16
plan figure4 --suite mini --batch-size 4
plan figure4 --suite mini --drafting stock
plan figure4 --suite mini --paper-compat
plan figure7 --suite mini --batch-size 0
plan figure7 --suite mini --batch-size 17 --questions 16
plan figure7 --suite mini --drafting exakt
plan figure4 --suite mini --workers 0
plan figure4 --suite mini --gpus x
plan figure4 --suite mini --gpus 0 --workers 2
run figure4 --suite mini --targets llama-2
run figure4 --suite mini --runs-dir file
render figure4 --suite mini --runs-dir thesis
serve nothing
train eagle2
train mimi
train mini --workers 0
train mini --models-dir file
download --suite mini
download --from hugging
convert nothing --to sglang --out there
import nothing
"""

SUITE: tuple[tuple[str, Any], ...] = (
    ("scale", []),
    ("version", None),
    ("name", "My suite"),
    ("trees.main", "6,10"),
    ("limits.questions", 0),
    ("limits.dtype", "float23"),
    ("targets.mini-llama-2.template", "chatml"),
    ("targets.mini-llama-2.capture", [7, 3]),
    ("drafters.prism.folder", "x"),
    ("drafters.prism.roles", []),
)
"""Keys of mini.toml with another value, or none."""

EXPERIMENT: tuple[tuple[str, Any], ...] = (
    ("drafter", ["hass"]),
    ("cells.scales", "biggest"),
    ("cells.benchmarks", []),
    ("drafters", ["eagle3", "prsm"]),
    ("series.0.color", "blue"),
    ("claims", [{"id": "X", "text": "it is better", "parts": [{"drafters": ["prism"]}]}]),
)
"""Keys of figure5.toml."""

CONFIG: tuple[tuple[str, Any], ...] = (
    ("architectures", ["MistralForCausalLM"]),
    ("attention_bias", True),
    ("rope_scaling", {"type": "linear", "factor": 2.0}),
    ("key_of_next_year", 0.3),
    ("hidden_size", "16"),
)
"""Keys of a target's config.json."""

QUESTIONS = ('{"question_id": 1', '{"question_id": 1}', '{"question_id": 1, "turns": []}', "")
"""Question files of one line."""


def changed(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with a dotted key set, or deleted for None."""
    data = json.loads(json.dumps(data))
    *path, last = key.split(".")
    table: Any = data
    for part in path:
        table = table[int(part)] if isinstance(table, list) else table[part]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return data


def spoiled(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """A drafter's folder with one thing wrong, and its reading."""

    def read(name: str) -> Callable[[], object]:
        return lambda: read_drafter(folder / name, TargetSizes.of(TARGET), CAPTURE)

    tensor = "layers.0.mlp.down_proj.weight"
    target = make_target()
    for name, change in (
        ("tensor missing", lambda state: state.pop(tensor)),
        ("tensor of another shape", lambda state: state.update({tensor: state[tensor].T.contiguous()})),
        ("tensor of integers", lambda state: state.update({tensor: state[tensor].int()})),
        ("tensor that nobody asked for", lambda state: state.update(stray=state[tensor].clone())),
    ):
        write(folder / name, "sglang eagle2", make_drafter("eagle2", target))
        state = read_state(folder / name)
        change(state)
        write_state(folder / name, state)
        yield name, read(name)
    for name, key, value in (("layout", "architectures", ["Other"]), ("key", "norm_before_residual", True)):
        write(folder / name, "sglang eagle2", make_drafter("eagle2", target))
        change_config(folder / name, lambda data, key=key, value=value: data.update({key: value}))
        yield f"{name} not known", read(name)
    weights = folder / "cut off" / "model.safetensors"
    write(weights.parent, "sglang eagle2", make_drafter("eagle2", target))
    weights.write_bytes(weights.read_bytes()[:-7])
    yield "weights cut off", read("cut off")
    weights.unlink()
    yield "no weights", read("cut off")
    yield "no folder", read("nothing")


def calls(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done, in words, and its doing."""
    mini = tomllib.loads((Path(suites.__file__).parent / "mini.toml").read_text())
    for key, value in SUITE:
        yield f"suite: {key} = {value}", lambda key=key, value=value: parse_suite(changed(mini, key, value), "my.toml")
    figure = tomllib.loads((experiment_folder("figures") / "figure5.toml").read_text())
    for key, value in EXPERIMENT:
        yield (
            f"figure: {key} = {value}",
            lambda key=key, value=value: parse_experiment(changed(figure, key, value), "my.toml"),
        )
    for key, value in CONFIG:
        (folder / "target").mkdir(exist_ok=True)
        save_target(folder / "target", make_target(), {key: value})
        yield f"target: {key} = {value}", lambda: load_target(folder / "target", torch.float32, torch.device("cpu"))
    for text in QUESTIONS:
        (folder / "question.jsonl").write_text(text)
        yield f"questions: {text}", lambda: read_questions(folder / "question.jsonl", 1)
    yield from ((f"drafter: {name}", read) for name, read in spoiled(folder))


def said(words: Sequence[str]) -> str:
    """What a command line says on stderr, and its exit code."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = entry.run(words)
    return f"{err.getvalue()}exit code {code}\n"


def messages(folder: Path) -> str:
    """All of them, in an empty folder that is the current one."""
    (folder / "file").touch()
    (folder / "thesis/mini").mkdir(parents=True)
    (folder / "thesis/mini/thesis.tex").touch()
    (folder / "broken.toml").write_text("name = \n")
    found = [f"$ prism-ae {line}\n{said(shlex.split(line))}" for line in COMMANDS.split("\n") if line]
    for what, call in calls(folder):
        try:
            call()
        except PrismError as error:
            found.append(f"# {what}\n{type(error).__name__}: {error}\n")
        else:
            found.append(f"# {what}\nno error\n")
    return "\n".join(found).replace(str(folder), "/here")


def test_messages_read_as_they_did(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        assert messages(tmp_path) == GOLDEN.read_text(), __doc__


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        GOLDEN.write_text(messages(Path(place)))
