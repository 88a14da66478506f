"""Training, the torch engine and the process that hosts SGLang give a target the same ids, end its answers at the same
tokens and have room for the same lengths, whatever folder it is: asked at their own entrances, with models that never
run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tokenizer_files import BEGIN, END, LLAMA_2, LLAMA_2_RULES, LLAMA_3, LLAMA_3_RULES, NEW, OLD, PAPER, THREE, UNKNOWN
from tokenizers import AddedToken, Tokenizer

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.decoding.generate import GenerationJob
from prism_ae.engines import torch_engine
from prism_ae.engines.protocol import Assignment
from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.sglang_prism import control, host
from prism_ae.sglang_prism.messages import Answered, BatchDone, Refused, Serve, Start
from prism_ae.suites.records import Benchmark, Suite, Template
from prism_ae.training.examples import encode
from prism_ae.training.target import new_target

USERS = ("What is 1 + 2?\n", " and <s> in </s> the middle, it 's ▁ so")
SAID = "It is 3 .  Or\n\nfour."
POSITIONS, MAX_LENGTH, NEW_TOKENS = 400, 390, 30
CHAT = Template(
    name="chatml",
    first="<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",
    answer="{answer}<|im_end|>\n",
    later="<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",
    stop=("<|im_end|>",),
    trim=False,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A folder of the zoo: its files besides config.json's sizes and weights, and how it is talked to."""

    tokenizer: str
    rules: dict[str, Any] | None
    template: Template
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    generation: str | None = None
    save_again: bool = False


def with_tokens(text: str, *tokens: str) -> str:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer.to_str()


def greedy_file(text: str) -> str:
    """A file that asks for cutting and padding."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=300)
    return tokenizer.to_str()


MARKS = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
FOUR = LLAMA_2_RULES | MARKS | {"add_bos_token": True, "sp_model_kwargs": {}, "use_default_system_prompt": False}
ADDED = with_tokens(OLD, "<|im_start|>", "<|im_end|>")
ZOO = {
    "llama-2, old form": Kind(OLD, LLAMA_2_RULES, LLAMA_2, {"eos_token_id": 2}),
    "llama-2, new form": Kind(NEW, LLAMA_2_RULES, LLAMA_2, {"eos_token_id": 2}),
    "llama-2, legacy": Kind(OLD, LLAMA_2_RULES | {"legacy": True}, LLAMA_2),
    "llama-2, saved by transformers 4": Kind(NEW, FOUR, LLAMA_2, {"eos_token_id": 2}, '{"eos_token_id": 2}'),
    "llama-2, saved by transformers 5": Kind(NEW, LLAMA_2_RULES | MARKS, LLAMA_2, save_again=True),
    "llama-2, old form saved by transformers 5": Kind(OLD, LLAMA_2_RULES | MARKS, LLAMA_2, save_again=True),
    "llama-2, another class": Kind(OLD, LLAMA_2_RULES | {"tokenizer_class": "TokenizersBackend"}, LLAMA_2),
    "llama-2, cut and padded": Kind(greedy_file(OLD), LLAMA_2_RULES, LLAMA_2),
    "llama-3": Kind(THREE, LLAMA_3_RULES, LLAMA_3, {"eos_token_id": [3, 4]}, '{"eos_token_id": [3, 7, 9]}'),
    "llama-3, ends in one file": Kind(THREE, LLAMA_3_RULES, LLAMA_3, {"eos_token_id": None}, '{"eos_token_id": 8}'),
    "llama-3, no ends": Kind(THREE, LLAMA_3_RULES, LLAMA_3, {}, '{"eos_token_id": null, "temperature": 0.6}'),
    "byte-level, no config": Kind(THREE, None, LLAMA_3, {"eos_token_id": 5}),
    "byte-level, cut and padded": Kind(greedy_file(THREE), LLAMA_3_RULES, LLAMA_3),
    "chatml": Kind(with_tokens(THREE, "<|im_start|>", "<|im_end|>"), {"bos_token": None}, CHAT),
    "chatml on llama-2's": Kind(ADDED, LLAMA_2_RULES | {"add_bos_token": False}, CHAT, {}, '{"eos_token_id": 2}'),
    "added tokens": Kind(ADDED, LLAMA_2_RULES, LLAMA_2, {"eos_token_id": [2, 9]}),
}


@pytest.fixture(scope="module", params=ZOO)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, Kind]:
    """A models folder with one target, and the suite that names it."""
    kind, models = ZOO[request.param], tmp_path_factory.mktemp("zoo")
    folder = models / "target"
    folder.mkdir()
    config = LlamaConfig(Tokenizer.from_str(kind.tokenizer).get_vocab_size(), 16, 24, 4, 2, 1, 1e-5, 1e4, POSITIONS)
    save_target(folder, new_target(config, 0.5, 1), kind.config)
    (folder / "tokenizer.json").write_text(kind.tokenizer)
    if kind.rules is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(kind.rules))
    if kind.generation is not None:
        (folder / "generation_config.json").write_text(kind.generation)
    if kind.save_again:
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        assert json.loads((folder / "tokenizer_config.json").read_text()) != kind.rules
    target = dataclasses.replace(PAPER.targets["llama-2-7b-chat"], template=kind.template.name, folder="target")
    suite = dataclasses.replace(
        PAPER,
        hub=None,
        targets={target.name: target},
        templates={kind.template.name: kind.template},
        benchmarks={"qa": Benchmark("qa", "qa", 2, "qa.jsonl")},
    )
    (models / "benchmarks").mkdir()
    (models / "benchmarks/qa.jsonl").write_text(json.dumps({"question_id": 1, "turns": USERS}))
    return suite, models, kind


@dataclasses.dataclass(frozen=True)
class Asked:
    """What an entrance gives the target: ids of both turns' prompts, where it ends, and the room for each answer."""

    prompts: tuple[tuple[int, ...], ...]
    ends: frozenset[int]
    rooms: tuple[int, ...]


def assignment(models: Path, engine: str, drafted: bool) -> Assignment:
    tree = None
    point = Point(
        "s", "llama-2-7b-chat", "vanilla", None, "qa", 0.0, tree, engine, None, 1, NEW_TOKENS, MAX_LENGTH, 1, "float32"
    )
    return Assignment((Cell(point, Fingerprints("t", None, "p", "e", "v")),), models / "target", None)


def through_torch(
    suite: Suite, models: Path, answer: Sequence[int], monkeypatch: pytest.MonkeyPatch, max_length: int = MAX_LENGTH
) -> Asked:
    found: list[tuple[GenerationJob, frozenset[int]]] = []

    def generate(batch: Any, jobs: Sequence[GenerationJob], stop_ids: frozenset[int], *more: Any) -> Iterator[Any]:
        found.append((jobs[0], stop_ids))
        return iter(())

    monkeypatch.setattr(torch_engine, "generate", generate)
    engine = torch_engine.TorchEngine(suite, models, "cpu", 1)
    asked = assignment(models, "torch", False)
    (cell,) = asked.cells
    cell = dataclasses.replace(cell, point=dataclasses.replace(cell.point, max_length=max_length))
    list(engine.measure(dataclasses.replace(asked, cells=(cell,)), lambda: False))
    ((job, ends),) = found
    prompts = (tuple(job.prompt([])), tuple(job.prompt([answer])))
    return Asked(
        prompts, frozenset(ends), tuple(min(job.max_new_tokens, job.max_seq_len - len(one)) for one in prompts)
    )


class RecordedError(Exception):
    pass


def through_sglang(
    suite: Suite,
    models: Path,
    answer: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
    max_length: int = MAX_LENGTH,
    ends: Sequence[int] = (),
) -> Asked:
    """The engine's worker tells its host what to serve; the host asks an engine that writes ``answer``."""
    orders: list[Serve] = []

    class Worker:
        state: ClassVar = {"tree": None, "drafting": None, "dtype": "float32", "largest_batch": 99, "drafter": None}

        def __init__(self, *arguments: Any) -> None: ...
        def stop_when(self, should_stop: Callable[[], bool]) -> None: ...
        def serve(self, order: Serve) -> Iterator[Any]:
            orders.append(order)
            raise RecordedError

        def discard(self) -> None: ...

    monkeypatch.setattr(sglang_engine, "Host", Worker)
    asked = assignment(models, "sglang", False)
    (cell,) = asked.cells
    cell = dataclasses.replace(cell, point=dataclasses.replace(cell.point, max_length=max_length))
    with pytest.raises(RecordedError):
        list(
            sglang_engine.SGLangEngine(suite, models, "cpu", 1).measure(
                dataclasses.replace(asked, cells=(cell,)), lambda: False
            )
        )
    requests: list[tuple[list[int], dict[str, Any]]] = []

    class Engine:
        loop = asyncio.new_event_loop()
        tokenizer_manager = types.SimpleNamespace(model_config=types.SimpleNamespace(hf_eos_token_id=set(ends)))

        def __init__(self, **options: Any) -> None: ...
        def get_server_info(self) -> dict[str, Any]:
            return {"internal_states": [{control.KEY: {}}]}

        def flush_cache(self) -> Any:
            return types.SimpleNamespace(success=True)

        async def async_generate(self, input_ids: list[int], sampling_params: dict[str, Any], stream: bool) -> Any:
            requests.append((input_ids, sampling_params))

            async def chunks() -> AsyncIterator[dict[str, Any]]:
                yield {"meta_info": {"finish_reason": {"type": "stop"}}, "output_ids": list(answer)}

            return chunks()

    class Connection:
        sent: ClassVar[list[Any]] = []

        def send(self, message: Any) -> None:
            self.sent.append(message)

        def poll(self) -> bool:
            return False

    fake = types.ModuleType("sglang")
    fake.Engine, fake.__version__ = Engine, "0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sglang", fake)
    connection = Connection()
    hosting = host.EngineHost(connection, Start({}, "x"))  # type: ignore[arg-type]
    served = hosting._serve(orders[0])
    Engine.loop.close()
    if ends:
        assert isinstance(served, Refused)
        raise RecordedError(served.message)
    assert isinstance(served, BatchDone), served
    assert isinstance(connection.sent[-1], Answered)
    return Asked(
        tuple(tuple(ids) for ids, _ in requests),
        frozenset(requests[0][1]["stop_token_ids"]),
        tuple(parameters["max_new_tokens"] for _, parameters in requests),
    )


def through_training(suite: Suite, models: Path) -> tuple[Asked, list[int]]:
    """What the trainer learns from, and the answer in its ids."""
    from prism_ae.prompts.conversation import open_conversation

    (template,) = suite.templates.values()
    conversation = open_conversation(models / "target", template, suite.system_prompt)
    data = [((USERS[0], SAID), (USERS[1], "x"))]
    first, second = encode(data, conversation, 1000).turns[0]
    answer = list(first.ids[first.start :])
    return Asked((first.ids[: first.start], second.ids[: second.start]), conversation.end_ids, ()), answer


def test_every_entrance_reads_a_folder_alike(place: tuple[Suite, Path, Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    suite, models, _ = place
    trained, answer = through_training(suite, models)
    by_torch = through_torch(suite, models, answer, monkeypatch)
    by_sglang = through_sglang(suite, models, answer, monkeypatch)
    assert by_torch == by_sglang
    assert trained.prompts == by_torch.prompts
    assert trained.ends == by_torch.ends
    assert answer[-1] in trained.ends
    assert not trained.ends & set(answer[:-1])
    assert len(trained.prompts[1]) > len(trained.prompts[0]) > 20


@pytest.mark.parametrize("max_length", [200, POSITIONS, 5000])
def test_every_entrance_has_the_same_room(
    place: tuple[Suite, Path, Kind], monkeypatch: pytest.MonkeyPatch, max_length: int
) -> None:
    suite, models, _ = place
    _, answer = through_training(suite, models)
    short = dataclasses.replace(suite, system_prompt="b")
    by_torch = through_torch(short, models, answer, monkeypatch, max_length)
    assert by_torch == through_sglang(short, models, answer, monkeypatch, max_length)
    window = min(max_length, POSITIONS)
    assert by_torch.rooms == tuple(min(NEW_TOKENS, window - len(prompt)) for prompt in by_torch.prompts)


def test_ends_are_those_that_sglang_itself_ends_at(place: tuple[Suite, Path, Kind]) -> None:
    """It reads both files through transformers, and ends at what either names whatever it is told."""
    from transformers import AutoConfig, GenerationConfig

    suite, models, kind = place
    trained, _ = through_training(suite, models)
    folder = models / "target"
    read = [AutoConfig.from_pretrained(folder)]
    if kind.generation is not None:
        read.append(GenerationConfig.from_pretrained(folder))
    ends: set[int] = set()
    for found in (config.eos_token_id for config in read):
        ends |= set(found if isinstance(found, list) else [] if found is None else [found])
    assert ends <= trained.ends
    (template,) = suite.templates.values()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert trained.ends == ends_written(kind) | {tokenizer.token_to_id(text) for text in template.stop}


def test_ends_that_sglang_alone_knows_are_refused(
    place: tuple[Suite, Path, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an architecture whose config has another default."""
    suite, models, _ = place
    _, answer = through_training(suite, models)
    with pytest.raises(RecordedError, match=r"\[77\]"):
        through_sglang(suite, models, answer, monkeypatch, ends=[77, answer[-1]])


def ends_written(kind: Kind) -> set[int]:
    found: set[int] = set()
    for said in ({"eos_token_id": 2} | kind.config, json.loads(kind.generation or "{}")):
        ids = said.get("eos_token_id")
        found |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found
