"""Conversations that a target writes: the same bytes however often it is stopped, every filter, nested amounts."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from raising import raises

from prism_ae.devices.slots import Slot
from prism_ae.errors import ConfigError, MissingError, StoreError
from prism_ae.io.digests import file_digest
from prism_ae.mini import corpus
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.models.locate import Located
from prism_ae.prompts.conversation import Conversation, open_conversation
from prism_ae.recipes.data import DataRecipe, TurnRecipe, check_data_recipe
from prism_ae.recipes.file import TargetTraining
from prism_ae.suites.load import load_suite
from prism_ae.training.examples import encode
from prism_ae.training.jsonl import read_conversations
from prism_ae.training.target import new_target, train_target
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer
from prism_ae.training.written import filters
from prism_ae.training.written.filters import Duplicates, gist, repeated_share
from prism_ae.training.written.order import DataOrder
from prism_ae.training.written.run import _with_room, launch_writer, write_data
from prism_ae.training.written.shards import Shard, Taken, Written, load_shard, part_file, read_data, save_shard
from prism_ae.training.written.writing import ShardWriter, user_side

SUITE = load_suite("mini")
TEMPLATE, SYSTEM = SUITE.templates["llama-3"], "Be kind."
RECIPE = DataRecipe(
    seed=1,
    unit=500,
    dtype="bfloat16",
    rows=16,
    attempts=48,
    ngram=4,
    user=TurnRecipe(temperature=1.0, min_tokens=2, max_tokens=40, max_repeated=0.5),
    answer=TurnRecipe(temperature=0.0, min_tokens=2, max_tokens=24, max_repeated=0.5),
)
SLOTS = tuple(Slot(f"cpu slot {number}", "cpu", "CPU", 1, {"OMP_NUM_THREADS": "1"}) for number in range(2))


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.notes: list[str] = []

    def show(self, text: str, done: int = 0) -> None:
        self.texts.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target of two layers that has learnt the form of a conversation, user turns included."""
    folder = tmp_path_factory.mktemp("target")
    data = corpus.conversations(1500, 8)
    tokenizer = train_tokenizer(data, TEMPLATE, SYSTEM, 400, single_digits=False)
    model = new_target(LlamaConfig(tokenizer.get_vocab_size(), 32, 48, 2, 2, 1, 1e-5, 1000.0, 256), 0.5, 1)
    save_target(folder, model, {"eos_token_id": tokenizer.token_to_id("<|eot_id|>")})
    save_tokenizer(folder, tokenizer, TEMPLATE, 256)
    turns = encode(data, open_conversation(folder, TEMPLATE, SYSTEM), 256).turns
    training = TargetTraining(1500, 1, 16, 1e-2, 2e-2, 2, 0.4, 1.0, 0.5, 1.0)
    train_target(model, [turn for told in turns for turn in told], training, lambda steps, loss: None)
    save_target(folder, model, {"eos_token_id": tokenizer.token_to_id("<|eot_id|>")})
    return folder


@pytest.fixture(scope="module")
def conversation(target: Path) -> Conversation:
    return open_conversation(target, TEMPLATE, SYSTEM)


def writer(target: Path, conversation: Conversation, recipe: DataRecipe = RECIPE) -> ShardWriter:
    model = load_target(target, getattr(torch, recipe.dtype), torch.device("cpu"))
    return ShardWriter(model, conversation, recipe)


def order(folder: Path, target: Path, tokens: int = 1000, slots: int = 1) -> DataOrder:
    return DataOrder(folder, Located(target, "a fingerprint"), TEMPLATE, SYSTEM, RECIPE, tokens, SLOTS[:slots])


@pytest.fixture(scope="module")
def written(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    write_data(order(folder, target), Shown())
    return folder


def sums(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.glob("part-*"))}


# --- Filters.


@pytest.mark.parametrize(
    ("ids", "n", "share"),
    [
        ([], 2, 0.0),
        ([1], 2, 0.0),
        ([1, 2, 3, 4], 2, 0.0),
        ([1, 2, 1, 2, 1], 2, 0.5),  # 12 21 12 21
        ([1, 2, 3, 1, 2, 4], 2, 0.2),  # 12 23 31 12 24
        ([5] * 101, 1, 100 / 101),
        ([5] * 104, 4, 100 / 101),
    ],
)
def test_the_share_of_repeated_ngrams(ids: list[int], n: int, share: float) -> None:
    assert repeated_share(ids, n) == pytest.approx(share)


def test_answers_are_the_same_by_their_words_and_user_turns_by_every_letter() -> None:
    assert gist("Yes,\n it IS.") == gist("yes it is") != gist("it is yes")
    assert gist("!?") != gist("?!") != ""
    there = Duplicates()
    assert [there.has_user(text) for text in ("Hi", "hi", "Hi.", "Hi")] == [False, False, False, True]
    assert [there.has_answer(text) for text in ("Hi", "Ho", "hi.", "Hi there")] == [False, False, True, False]


class Scripted(ShardWriter):
    """Its target writes these user turns and answers, as token ids, in their order; every prompt is kept."""

    turns: Sequence[Sequence[int]]
    replies: Sequence[Sequence[int]]

    def _decoded(self, side: str, number: int, prompts: Sequence[Sequence[int]], tick: Any) -> list[Sequence[int]]:
        self.prompts = prompts
        return list(self.turns if side == "user" else self.replies)[: len(prompts)]


GOOD_TURN, GOOD_ANSWER = "Plan a day in Oslo.", "Here is a plan."


@pytest.mark.parametrize(
    ("turn", "reply", "reason"),
    [
        ("{user}{end}", "{answer}{end}", ""),
        ("{user}", "{answer}{end}", filters.NO_END),
        ("{user}{other end}", "{answer}{end}", filters.NO_END),
        ("{user}{begin}{user}{end}", "{answer}{end}", filters.SPECIAL),
        ("{end}", "{answer}{end}", filters.SHORT_TURN),
        ("{space}{space}{space}{end}", "{answer}{end}", filters.SHORT_TURN),
        ("{loop}{end}", "{answer}{end}", filters.REPEATED_TURN),
        ("{there}{end}", "{answer}{end}", filters.SAME_TURN),
        ("{long}{end}", "{answer}{end}", filters.LONG_TURN),
        ("{user}{end}", "{end}", filters.SHORT_ANSWER),
        ("{user}{end}", "{loop}{end}", filters.REPEATED_ANSWER),
        ("{user}{end}", "{space}{answer}{end}", filters.RESPELT_ANSWER),
        ("{user}{end}", "{letters}{end}", filters.RESPELT_ANSWER),
        ("{user}{end}", "{answer}{other end}", filters.RESPELT_ANSWER),
        ("{user}{end}", "{there's answer}{end}", filters.SAME_ANSWER),
        ("{user}{end}", "{answer}", ""),
    ],
)
def test_every_filter(turn: str, reply: str, reason: str, target: Path, conversation: Conversation) -> None:
    """A good conversation stands first; the second is dropped for its reason alone, or kept."""
    tokenizer = conversation.tokenizer

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    pieces = {
        "user": ids(GOOD_TURN),
        "answer": ids(GOOD_ANSWER),
        "there": ids("Who was there?"),
        "there's answer": ids("NOBODY, was there!"),
        "loop": ids("a day") * 12,
        "long": ids(" ".join(map(str, range(100, 260)))),
        "letters": [one for letter in GOOD_ANSWER for one in ids(letter)],
        "space": ids(" "),
        "end": [conversation.stop_id],
        "other end": [tokenizer.token_to_id("<|begin_of_text|>")],
        "begin": [tokenizer.token_to_id("<|start_header_id|>")],
    }
    talk = dataclasses.replace(conversation, end_ids=conversation.end_ids | set(pieces["other end"]))

    def said(text: str) -> list[int]:
        return [one for name in text.strip("{}").split("}{") for one in pieces[name]]

    script = Scripted(load_target(target, torch.float32, torch.device("cpu")), talk, RECIPE)
    script.turns = [said("{there}{end}"), said(turn)]
    script.replies = [ids("Nobody was there.") + pieces["end"], said(reply)]
    shard = script.write(0, lambda side, count: None)
    assert {name: count for name, count in shard.dropped.items() if count} == ({reason: 1} if reason else {})
    kept = [(one.user, one.answer) for one in shard.conversations]
    assert kept == [("Who was there?", "Nobody was there."), *([] if reason else [(GOOD_TURN, GOOD_ANSWER)])]
    if not reason:
        assert shard.conversations[1].cut == (reply == "{answer}")
        assert shard.conversations[1].answer_tokens == len(said(reply))


def test_a_cut_answer_loses_half_a_word_and_half_a_letter(target: Path, conversation: Conversation) -> None:
    """What is left is spelt with exactly the tokens that the target wrote."""
    script = Scripted(load_target(target, torch.float32, torch.device("cpu")), conversation, RECIPE)
    tokenizer = conversation.tokenizer
    user, answer = (tokenizer.encode(text, add_special_tokens=False).ids for text in (GOOD_TURN, GOOD_ANSWER))
    half = tokenizer.encode("\N{SNOWMAN}", add_special_tokens=False).ids[:-1]
    assert half
    script.turns, script.replies = [[*user, conversation.stop_id]], [[*answer, *half]]
    (one,) = script.write(0, lambda side, count: None).conversations
    assert one == Written(GOOD_TURN, GOOD_ANSWER, len(answer), cut=True)


# --- What is written.


def test_the_bare_template_is_what_a_user_speaks_into(conversation: Conversation) -> None:
    side = user_side(conversation)
    (prompt,) = conversation.prompts([(["Hello"], [])])
    hello = conversation.tokenizer.encode("Hello", add_special_tokens=False).ids
    assert prompt[: len(side.prompt)] == list(side.prompt)
    assert prompt[len(side.prompt) :][: len(hello) + 1] == [*hello, side.end]


def test_a_template_without_an_end_of_user_turns_is_refused(conversation: Conversation) -> None:
    without = dataclasses.replace(TEMPLATE, first="<|begin_of_text|>{system}\nuser: {user}\nanswer: ")
    with raises(ConfigError, TEMPLATE.name, "--data"):
        user_side(dataclasses.replace(conversation, template=without))


def plain_text(model: Llama, prompt: Sequence[int], uniforms: Sequence[float] | None, most: int, end: int) -> list[int]:
    """Token by token over the whole text; sampled at T = 1 by ``uniforms``, else greedy."""
    ids = list(prompt)
    for place in range(most):
        hidden, _ = model(torch.tensor([ids]), torch.arange(len(ids))[None])
        logits = model.head(hidden[0, -1])
        if uniforms is None:
            token = int(logits.argmax())
        else:
            total = logits.double().softmax(-1).cumsum(-1).tolist()
            token = next(token for token, sum_to in enumerate(total) if sum_to > uniforms[place])
        ids.append(token)
        if token == end:
            break
    return ids[len(prompt) :]


@torch.inference_mode()
def test_turns_are_the_targets_own(target: Path, conversation: Conversation) -> None:
    """In float32, against decoding one by one without a cache."""
    from prism_ae.decoding.sampling import question_uniforms

    recipe = dataclasses.replace(RECIPE, dtype="float32")
    shard = writer(target, conversation, recipe).write(3, lambda side, count: None)
    model, end = load_target(target, torch.float32, torch.device("cpu")), conversation.stop_id
    prompt, users = user_side(conversation).prompt, []
    for place in range(recipe.attempts):
        uniforms = question_uniforms(recipe.seed, f"user/3/{place}", 0, recipe.user.max_tokens)
        ids = plain_text(model, prompt, list(uniforms), recipe.user.max_tokens, end)
        users.append(conversation.answer_text(ids).strip())
    assert len(shard.conversations) > 5
    assert Counter(one.user for one in shard.conversations) <= Counter(users)
    for one in shard.conversations[:8]:
        (asked,) = conversation.prompts([([one.user], [])])
        ids = plain_text(model, asked, None, recipe.answer.max_tokens, end)
        (answer,) = conversation.answers([one.answer])
        assert ids[: len(answer)] == answer
        assert one.cut == (end not in ids)


def test_training_reads_exactly_what_was_written(written: Path, conversation: Conversation) -> None:
    told = read_conversations(part_file(written, 0))
    shard = load_shard(written, 0)
    assert told.conversations == tuple(((one.user, one.answer),) for one in shard.conversations)
    assert not told.defects
    assert [one.cut for one in shard.conversations] == [row in told.cut for row in range(len(told.conversations))]
    assert 0 < len(told.cut) < len(shard.conversations)
    encoded = encode(told.conversations, conversation, 256, told.cut)
    for one, turns in zip(shard.conversations, encoded.turns, strict=True):
        (example,) = turns
        assert len(example.ids) - example.start == one.answer_tokens
        assert (example.ids[-1] == conversation.stop_id) != one.cut


def test_only_the_last_answer_of_a_whole_conversation_is_cut(tmp_path: Path, conversation: Conversation) -> None:
    turn = {"user": "a", "assistant": "b"}
    lines = [
        {"conversations": [turn, turn], "cut": True},
        {"conversations": [turn, {"user": "a", "assistant": ""}], "cut": True},
        {"conversations": [turn], "cut": 1},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = read_conversations(tmp_path / "a.jsonl")
    assert told.cut == {0}
    turns = encode(told.conversations, conversation, 256, told.cut).turns
    ended = [[example.ids[-1] == conversation.stop_id for example in one] for one in turns]
    assert ended == [[True, False], [True], [True]]


# --- The folder.


def test_the_number_of_workers_changes_nothing(written: Path, target: Path, tmp_path: Path) -> None:
    shown = Shown()
    summary = write_data(order(tmp_path / "data", target, slots=2), shown)
    mine, theirs = sums(tmp_path / "data"), sums(written)
    assert {name: mine[name] for name in theirs} == theirs
    assert summary.answer_tokens >= 1000
    assert summary.begun - sum(summary.dropped.values()) == summary.conversations
    assert summary.spent == summary.written
    assert summary.peak_bytes > 1e7
    assert len(summary.examples) == 10
    assert any("1,000 answer tokens" in text and "left" in text for text in shown.texts)
    assert str(tmp_path) in shown.notes[0]
    again = write_data(order(tmp_path / "data", target), Shown())
    assert again.written == 0
    assert dataclasses.replace(again, written=summary.written, seconds=0, peak_bytes=0) == dataclasses.replace(
        summary, seconds=0, peak_bytes=0
    )


_CHILD = """
import pickle, sys
from prism_ae.processes.progress import PlainLines
from prism_ae.training.written.run import write_data
write_data(pickle.loads(bytes.fromhex(sys.argv[1])), PlainLines(sys.stderr))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_continued_it_is_the_same(
    number: signal.Signals, written: Path, target: Path, tmp_path: Path
) -> None:
    import pickle

    asked = order(tmp_path / "data", target, slots=2)
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, pickle.dumps(asked).hex()],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    deadline = time.monotonic() + 120
    while not part_file(asked.folder, 0).exists() and not part_file(asked.folder, 1).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.wait(30)
    _, alive = psutil.wait_procs(children, 30)
    assert not alive
    assert all(path.name.startswith((".", "part-", "data.json")) for path in asked.folder.iterdir())
    write_data(asked, Shown())
    theirs, mine = sums(written), sums(asked.folder)
    assert {name: mine[name] for name in theirs} == theirs
    assert read_data(asked.folder, 1000) == read_data(written, 1000)


def test_a_dead_workers_shard_is_written_again(written: Path, target: Path, tmp_path: Path) -> None:
    shown, killed = Shown(), []

    def launch(asked: DataOrder, slot: Slot) -> Any:
        process = launch_writer(asked, slot)
        if not killed:
            killed.append(process)
            process.kill()
        return process

    asked = order(tmp_path / "data", target)
    write_data(asked, shown, launch)
    assert sums(asked.folder) == sums(written)


def test_less_data_are_the_beginning_of_more(written: Path) -> None:
    shards = [load_shard(written, number) for number in range(len(list(written.glob("part-*.jsonl"))))]
    assert len(shards) > 1
    amounts = (1, 200, 400, 600, 1000)
    told = [read_data(written, amount) for amount in amounts]
    for amount, less, more in zip(amounts, told, told[1:], strict=False):
        assert more.conversations[: len(less.conversations)] == less.conversations
        assert less.cut == {row for row in more.cut if row < len(less.conversations)}
        assert less.sha256 != more.sha256 or less.conversations == more.conversations
        tokens = [one.answer_tokens for shard in shards for one in shard.conversations]
        assert sum(tokens[: len(less.conversations) - 1]) < amount <= sum(tokens[: len(less.conversations)])
    with raises(MissingError, written, "1,000,000"):
        read_data(written, 1_000_000)


def test_duplicates_count_where_they_stand_first(tmp_path: Path) -> None:
    """Whatever was written first, and the files say what their shard alone gave."""
    one, two, three = (Written(f"user {n}", f"answer {n}", 5, cut=False) for n in range(3))
    same_user, same_answer = dataclasses.replace(one, answer="other"), dataclasses.replace(two, user="other")
    none = dict.fromkeys(filters.REASONS, 0)
    shards = [Shard((one, two), 4, none | {filters.NO_END: 2}, 40), Shard((same_answer, same_user, three), 3, none, 30)]
    for number in (1, 0):
        save_shard(tmp_path, number, shards[number])
    taken = Taken(tmp_path)
    taken.read_on()
    assert [told for _, _, told in taken.conversations] == [one, two, three]
    assert (taken.answer_tokens, taken.gains, taken.begun, taken.spent) == (15, [10, 5], 7, 70)
    assert +taken.dropped == {filters.NO_END: 2, filters.SAME_TURN: 1, filters.SAME_ANSWER: 1}
    told = read_data(tmp_path, 11)
    assert told.places == ("part-00000.jsonl, line 1", "part-00000.jsonl, line 2", "part-00001.jsonl, line 3")


def test_what_cannot_be_used_is_said(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    asked = order(folder, target)
    write_data(dataclasses.replace(asked, answer_tokens=1), Shown())
    with raises(ConfigError, folder, "recipe"):
        write_data(dataclasses.replace(asked, recipe=dataclasses.replace(RECIPE, seed=2)), Shown())
    write_data(dataclasses.replace(asked, recipe=dataclasses.replace(RECIPE, unit=7), answer_tokens=1), Shown())
    with raises(ConfigError, folder, "system"):
        write_data(dataclasses.replace(asked, system="Be short."), Shown())
    part_file(folder, 0).write_text('{"conversations": [{"user": "a", "assistant": "b"}]}\n')
    with raises(ConfigError, part_file(folder, 0), "line 1"):
        write_data(asked, Shown())
    (tmp_path / "file").touch()
    with raises(StoreError, tmp_path / "file"):
        write_data(dataclasses.replace(asked, folder=tmp_path / "file"), Shown())


def test_workers_share_the_memory_that_is_free(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = (dataclasses.replace(SLOTS[0], device="cuda:0"),) * 2
    found = [len(_with_room(slots, 10, free)) for slots, free in ((SLOTS, 25), (SLOTS, 24), (SLOTS, 0), (gpu, 0))]
    assert found == [2, 1, 1, 2]
    shown, asked = Shown(), order(tmp_path / "data", target, tokens=1, slots=2)
    wide = dataclasses.replace(RECIPE, rows=10**9)
    assert dataclasses.replace(asked, recipe=wide).worker_bytes() > 1e13 > 2e9 > asked.worker_bytes()
    monkeypatch.setattr("prism_ae.training.written.run.available", lambda: 0)
    write_data(asked, shown)
    assert any("1 worker, not 2" in note for note in shown.notes)


def test_a_target_that_gives_nothing_is_not_asked_for_ever(target: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(RECIPE, attempts=4, user=dataclasses.replace(RECIPE.user, max_tokens=2))
    asked = dataclasses.replace(order(tmp_path / "data", target), recipe=short)
    with raises(ConfigError, filters.NO_END):
        write_data(asked, Shown())


def test_failures_of_a_worker_are_the_runs(target: Path, tmp_path: Path) -> None:
    asked = order(tmp_path / "data", target)
    with raises(MissingError, tmp_path / "nowhere"):
        write_data(dataclasses.replace(asked, target=Located(tmp_path / "nowhere", "a fingerprint")), Shown())
    long = dataclasses.replace(RECIPE, answer=dataclasses.replace(RECIPE.answer, max_tokens=256))
    with raises(ConfigError, "256"):
        write_data(dataclasses.replace(asked, folder=tmp_path / "long", recipe=long), Shown())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"rows": 0}, "rows"),
        ({"attempts": 0}, "attempts"),
        ({"unit": 0}, "unit"),
        ({"ngram": 0}, "ngram"),
        ({"user": dataclasses.replace(RECIPE.user, temperature=0.0)}, "user.temperature"),
        ({"answer": dataclasses.replace(RECIPE.answer, temperature=-1.0)}, "answer.temperature"),
        ({"answer": dataclasses.replace(RECIPE.answer, min_tokens=30)}, "min_tokens"),
        ({"answer": dataclasses.replace(RECIPE.answer, max_repeated=1.5)}, "max_repeated"),
    ],
)
def test_recipes_are_checked(change: dict[str, Any], key: str) -> None:
    check_data_recipe(RECIPE, "a.toml: data")
    with raises(ConfigError, "a.toml: data", key):
        check_data_recipe(dataclasses.replace(RECIPE, **change), "a.toml: data")


def test_the_amount_of_a_scale_is_no_part_of_the_content() -> None:
    assert RECIPE.answer_tokens(2) == 1000
    assert dataclasses.replace(RECIPE, unit=7).content == RECIPE.content
    assert dataclasses.replace(RECIPE, rows=7).content != RECIPE.content
