"""Everything that an ordinary client asks a server for over HTTP: a PRISM server answers as one without drafts.

Each case is asked of a vanilla server first, some derived from its answers; then that server ends and the PRISM one
is asked the same, several cases at a time, so that requests of all kinds share its batches. Compared is the whole
answer, but for times, names of requests and what is said of drafts: text, token ids, counts, finish reason,
log-probabilities, refusals.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import pytest
import torch
from sglang_prism.http_place import END, HttpPlace, make_http_place
from sglang_prism.http_servers import BRANCH, STEPS, VERIFIED, Answer, Case, Server, refused, start

from prism_ae.models.checkpoints import load_target

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sglang") is None
    or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
    reason="SGLang, or the plugin's entry point, is not installed",
)

PROMPTS = ("ab", "cd", "hello the", "x", "1", "the end", "{", "Q: w", "Zebra", "lmn", "}{", "and so on")
LENGTH = 56
CONTEXT = 512
MAX_SEQ_LEN = CONTEXT - max(STEPS * BRANCH, VERIFIED)
"""Tokens of prompt and answer together, where SGLang drafts: it reserves slots for a round."""

Cases = list[Case]
Groups = dict[str, Cases]


# --- asking


def generate(name: str, prompt: Any, **parameters: Any) -> Case:
    """A request to SGLang's own endpoint; ``prompt`` is a text, token ids, or a list of either."""
    ids = not isinstance(prompt, str) and not isinstance(prompt[0], str)
    sampling = {"temperature": 0, "max_new_tokens": LENGTH} | parameters
    return Case(name, "/generate", {"input_ids" if ids else "text": prompt, "sampling_params": sampling})


def also(case: Case, name: str, **fields: Any) -> Case:
    """The same request with other fields beside the sampling parameters."""
    return Case(f"{case.name}, {name}", case.path, case.body | fields)


def completion(name: str, prompt: Any, **fields: Any) -> Case:
    body = {"model": "default", "prompt": prompt, "temperature": 0, "max_tokens": LENGTH}
    return Case(f"completion {name}", "/v1/completions", body | fields)


def chat(name: str, *turns: str, **fields: Any) -> Case:
    """``turns`` are the user's and the assistant's in turn."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    body = {"model": "default", "messages": messages, "temperature": 0, "max_tokens": LENGTH}
    return Case(f"chat {name}", "/v1/chat/completions", body | fields)


def streamed(case: Case) -> Case:
    options = {} if case.path == "/generate" else {"stream_options": {"include_usage": True}}
    return Case(f"{case.name}, streamed", case.path, case.body | {"stream": True} | options)


# --- what is asked of every server


def plain() -> Cases:
    found = [generate(f"{prompt!r}", prompt) for prompt in PROMPTS]
    found += [completion(f"{prompt!r}", prompt) for prompt in PROMPTS[:3]]
    found += [chat(f"{prompt!r}", prompt) for prompt in PROMPTS]
    return [*found, chat("of three turns", "ab", "cd", "hello"), completion("by tokens", [70, 71, 72])]


def batches(place: HttpPlace) -> Cases:
    """Several prompts, or answers, of one request."""
    ids = [place.tokens(prompt) for prompt in PROMPTS[:5]]
    apart = [{"temperature": 0, "max_new_tokens": most} for most in (1, 7, 20, 33)]
    return [
        *(generate(f"tokens of {prompt!r}", place.tokens(prompt)) for prompt in PROMPTS[:4]),
        generate("texts", list(PROMPTS[:5])),
        generate("lists of tokens", ids),
        Case("a limit each", "/generate", {"text": list(PROMPTS[:4]), "sampling_params": apart}),
        generate("n = 2", "ab", n=2),
        completion("of texts", list(PROMPTS[:3])),
        completion("n = 2", "cd", n=2),
        completion("echo", "hello the", echo=True, max_tokens=9),
        chat("n = 2", "ab", n=2),
    ]


def limits() -> Cases:
    """Limits shorter than a round and longer than an answer, to the very end of the context."""
    found = [generate(f"{p!r} limit {n}", p, max_new_tokens=n) for p in PROMPTS[:4] for n in (0, 1, 2, 3, 5, 6)]
    for prompt in ("x", "Q: w", "{", "ab"):
        for most in (1, 2, 7, 30):
            found.append(
                generate(f"{prompt!r} ignores ends, limit {most}", prompt, max_new_tokens=most, ignore_eos=True)
            )
    return found


def chosen_for_certain() -> Cases:
    """Temperatures above 0 with filters that leave one token."""
    found = []
    for number, prompt in enumerate(PROMPTS[:6]):
        filters = ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0})[number % 3]
        found.append(generate(f"{prompt!r} {filters}", prompt, temperature=0.9, **filters))
    return found


BIASES = ({"79": 6.0}, {"98": -100.0, "101": 3.5}, {str(END): 9.0}, {str(END): -100.0})


def biased() -> Cases:
    found = [
        generate(f"{prompt!r} bias {bias}", prompt, logit_bias=bias) for prompt in PROMPTS[:4] for bias in BIASES[:3]
    ]
    return [*found, completion("bias", "ab", logit_bias=BIASES[1]), chat("bias", "ab", logit_bias=BIASES[0])]


def logprobs() -> Cases:
    asked: dict[str, Any] = {"return_logprob": True}
    short = [generate(f"{prompt!r}", prompt, max_new_tokens=20) for prompt in PROMPTS[:4]]
    return [
        *(also(case, "logprobs", **asked) for case in short),
        *(also(case, "top 3", top_logprobs_num=3, **asked) for case in short),
        also(short[2], "of the prompt", logprob_start_len=0, top_logprobs_num=2, **asked),
        also(short[1], "as text", return_text_in_logprobs=True, **asked),
        completion("logprobs", "ab", logprobs=2, max_tokens=20),
        completion("echo with logprobs", "hello the", logprobs=2, echo=True, max_tokens=12),
        chat("logprobs", "ab", logprobs=True, top_logprobs=3, max_tokens=20),
        streamed(completion("logprobs", "cd", logprobs=2, max_tokens=20)),
        streamed(also(short[2], "logprobs", **asked)),
        streamed(chat("logprobs", "cd", logprobs=True, top_logprobs=3, max_tokens=20)),
    ]


PENALTIES: tuple[dict[str, float], ...] = (
    {"frequency_penalty": 0.9},
    {"frequency_penalty": -0.7},
    {"presence_penalty": 1.5},
    {"presence_penalty": -1.5},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"frequency_penalty": 0.6, "presence_penalty": 0.8},
    {"frequency_penalty": 1.1, "presence_penalty": -0.5, "min_new_tokens": 12},
    {"repetition_penalty": 1.3, "min_new_tokens": 20},
)
"""Not all three at once: without overlap SGLang takes them in the order of a set of classes, another in each process,
and adding first or scaling first makes a difference."""

TOGETHER = {"frequency_penalty": 0.6, "presence_penalty": 0.8, "repetition_penalty": 1.2}


def penalised() -> Cases:
    """Each alone, together, and beside requests without."""
    found = []
    for number, penalty in enumerate(PENALTIES):
        for prompt in (PROMPTS[number % 12], PROMPTS[(number + 5) % 12]):
            found.append(generate(f"{prompt!r} {penalty}", prompt, **penalty))
    several = [{"temperature": 0, "max_new_tokens": 30} | penalty for penalty in ({}, PENALTIES[0], {}, PENALTIES[6])]
    return [
        *found,
        Case("some of a batch penalised", "/generate", {"text": list(PROMPTS[:4]), "sampling_params": several}),
        also(generate("penalised", "ab", **PENALTIES[6]), "logprobs", return_logprob=True),
        completion("penalised", "ab", frequency_penalty=0.8, presence_penalty=0.4),
        chat("penalised", "1", frequency_penalty=0.8),
        streamed(generate("penalised", "}{", **PENALTIES[0])),
    ]


SCHEMA = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}, "count": {"type": "integer"}, "new": {"type": "boolean"}},
    "required": ["size", "count", "new"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
GRAMMARS: tuple[dict[str, str], ...] = (
    {"regex": "[0-9]{3}-[a-z]{2,9}!"},
    {"json_schema": json.dumps(SCHEMA)},
    {"ebnf": 'root ::= ("yes" | "no") " " [a-c]+ "."'},
    {"regex": "(the|and|ing){4}"},
)


def constrained() -> Cases:
    """Grammars that end, and that the limit cuts, beside requests without."""
    found = []
    for number, grammar in enumerate(GRAMMARS):
        kind = next(iter(grammar))
        for prompt in (PROMPTS[number], PROMPTS[number + 6]):
            found.append(generate(f"{prompt!r} {kind} {number}", prompt, **grammar))
        found.append(generate(f"{kind} {number} cut", "ab", **grammar, max_new_tokens=6))
    several = [{"temperature": 0, "max_new_tokens": 30} | grammar for grammar in ({}, GRAMMARS[0], {}, GRAMMARS[1])]
    return [
        *found,
        Case("some of a batch constrained", "/generate", {"text": list(PROMPTS[:4]), "sampling_params": several}),
        generate("constrained and penalised", "ab", **GRAMMARS[1], frequency_penalty=0.5),
        generate("constrained and stopped", "ab", **GRAMMARS[1], stop=['"count']),
        completion("regex", "ab", regex=GRAMMARS[0]["regex"]),
        chat("schema", "ab", response_format=FORMAT),
        streamed(chat("schema", "cd", response_format=FORMAT)),
    ]


def of_tokens() -> Cases:
    """Log-probabilities of named tokens: asked one by one, for where SGLang 0.5.17 does not overlap its scheduling it
    ends when such a request shares a batch with one of another kind, with drafts or without."""
    fields = {"return_logprob": True, "token_ids_logprob": [5, 70]}
    return [also(generate(f"{prompt!r}", prompt, max_new_tokens=20), "of tokens", **fields) for prompt in PROMPTS[:3]]


def refusals() -> Cases:
    """What a client asks for in vain, or wrongly."""
    ask = generate("", "ab")
    too_long = [70] * (CONTEXT + 5)
    return [
        also(ask, "hidden states", return_hidden_states=True),
        also(ask, "a custom logit processor", custom_logit_processor="anything"),
        also(ask, "no such LoRA", lora_path="absent"),
        generate("temperature below 0", "ab", temperature=-1),
        generate("min above max", "ab", min_new_tokens=9, max_new_tokens=8),
        generate("penalty too large", "ab", frequency_penalty=7),
        generate("bias of no token", "ab", logit_bias={"99999": 1.0}),
        generate("two grammars", "ab", regex="a", ebnf='root ::= "a"'),
        generate("prompt too long", too_long),
        generate("prompt and limit too long", too_long[:400], max_new_tokens=300),
        Case("nothing asked", "/generate", {"sampling_params": {"temperature": 0}}),
        streamed(generate("min above max", "ab", min_new_tokens=9, max_new_tokens=8)),
        completion("no tokens", "ab", max_tokens=0),
        completion("too long", too_long),
        chat("temperature below 0", "ab", temperature=-1),
        Case("chat without messages", "/v1/chat/completions", {"model": "default", "messages": []}),
        Case("no such endpoint", "/v1/nothing", {}),
    ]


# --- what is derived from vanilla's answers


class Writings:
    """What vanilla wrote to each prompt, until its end or a limit."""

    def __init__(self, place: HttpPlace, answers: Mapping[str, Answer]) -> None:
        self._place = place
        self.ids: dict[str, list[int]] = {prompt: answers[f"{prompt!r}"].body["output_ids"] for prompt in PROMPTS}

    def text(self, ids: Sequence[int]) -> str:
        return str(self._place.tokenizer.decode(list(ids)))

    def ended(self) -> list[str]:
        """Prompts whose answer ended by itself."""
        return [prompt for prompt, ids in self.ids.items() if ids[-1] == END]

    def long(self) -> list[str]:
        """Prompts whose answer is long."""
        return [prompt for prompt, ids in self.ids.items() if len(ids) > 20]

    def with_prompt(self, prompt: str) -> list[int]:
        """Prompt and answer."""
        return [*self._place.tokens(prompt), *self.ids[prompt]]

    def straddling(self, prompt: str, place: int) -> str:
        """A text that begins inside of one token and ends inside of another, where they are long enough; "" if the
        answer ends before."""
        ids = self.ids[prompt]
        if place + 2 > len(ids) - 2:
            return ""
        text = self.text(ids[place - 1 : place + 2])
        inner = text[1:-1] if len(text) > 3 else text
        return "" if "\N{REPLACEMENT CHARACTER}" in inner else inner

    def complete(self, prompt: str, stop: str) -> int:
        """The number of tokens with which the text is there first."""
        ids = self.ids[prompt]
        return next(count for count in range(1, len(ids) + 1) if stop in self.text(ids[:count]))


def around(count: int) -> list[int]:
    """Limits before, at, just behind and far behind the token where an answer stops."""
    return sorted({max(count - 1, 0), count, count + 1, count + 2, LENGTH + 4})


def stop_strings(writings: Writings, prompts: Sequence[str], places: Sequence[int]) -> Cases:
    found = {}
    for prompt in prompts:
        for place in places:
            if stop := writings.straddling(prompt, place):
                for most in around(writings.complete(prompt, stop)):
                    name = f"{prompt!r} stop {stop!r} limit {most}"
                    found[name] = generate(name, prompt, stop=[stop], max_new_tokens=most)
    return list(found.values())


def stop_patterns(writings: Writings, prompts: Sequence[str], places: Sequence[int]) -> Cases:
    found = {}
    for prompt in prompts:
        for place in places:
            if len(stop := writings.straddling(prompt, place)) > 1:
                pattern = re.escape(stop[0]) + ".{0,2}" + re.escape(stop[-1])
                for most in around(writings.complete(prompt, stop)):
                    name = f"{prompt!r} pattern {pattern!r} limit {most}"
                    found[name] = generate(name, prompt, stop_regex=pattern, max_new_tokens=most)
    return list(found.values())


def stop_tokens(writings: Writings, prompts: Sequence[str], places: Sequence[int]) -> Cases:
    found = {}
    for prompt in prompts:
        ids = writings.ids[prompt]
        for place in (place for place in places if place < len(ids) - 1):
            for most in around(ids.index(ids[place]) + 1):
                name = f"{prompt!r} stop at token {ids[place]} limit {most}"
                found[name] = generate(name, prompt, stop_token_ids=[ids[place]], max_new_tokens=most)
    return list(found.values())


def own_ends(writings: Writings) -> Cases:
    """Limits around the place where an answer ends by itself, and fewest tokens there."""
    found = []
    for prompt in writings.ended():
        count = len(writings.ids[prompt])
        found += [generate(f"{prompt!r} limit {most}", prompt, max_new_tokens=most) for most in around(count)[:-1]]
        for least in sorted({1, max(count - 1, 1), count, count + 1, count + 4, LENGTH - 3, LENGTH}):
            found.append(generate(f"{prompt!r} at least {least}", prompt, min_new_tokens=least))
        for most in (count + 1, count + 3):
            name = f"{prompt!r} between {count} and {most}"
            found.append(generate(name, prompt, min_new_tokens=count, max_new_tokens=most))
    return found


def stops_of_several_kinds(writings: Writings) -> Cases:
    """Several stops in reach of one round, kept stops, and the other endpoints."""
    found = []
    for prompt in writings.long():
        early, late = writings.straddling(prompt, 8), writings.straddling(prompt, 10)
        if not (early and late):
            continue
        token = writings.ids[prompt][9]
        found += [
            generate(f"{prompt!r} late and early", prompt, stop=[late, early]),
            generate(f"{prompt!r} string and token", prompt, stop=[late], stop_token_ids=[token]),
            generate(f"{prompt!r} string and pattern", prompt, stop=[late], stop_regex=re.escape(early)),
            generate(f"{prompt!r} kept", prompt, stop=[late], no_stop_trim=True),
            generate(f"{prompt!r} not before 15", prompt, stop_token_ids=[token], min_new_tokens=15),
            generate(f"{prompt!r} penalised", prompt, stop=[late], frequency_penalty=0.6),
            completion(f"{prompt!r} stop", prompt, stop=late, max_tokens=writings.complete(prompt, late) + 1),
        ]
    return found


def answers_to_chat(writings: Writings, answers: Mapping[str, Answer]) -> Cases:
    """Stops inside of what the assistant says, and second turns."""
    found = []
    for prompt in PROMPTS:
        said = answers[f"chat {prompt!r}"].body["choices"][0]["message"]["content"]
        if len(said) > 12 and "\N{REPLACEMENT CHARACTER}" not in said[7:10]:
            for most in (4, 9, 40):
                found.append(chat(f"{prompt!r} stop limit {most}", prompt, stop=[said[7:10]], max_tokens=most))
        found.append(chat(f"second turn of {prompt!r}", prompt, said, "go on"))
    return found


def prefixes(writings: Writings) -> Cases:
    """The same beginning several times, and conversations that go on: asked in this order."""
    beginning = [75, 76, 77, 102, 80] * 12
    found = [generate(f"the same {number}", beginning, max_new_tokens=24) for number in range(4)]
    found += [generate(f"another end {number}", [*beginning, 70 + number], max_new_tokens=24) for number in range(4)]
    for prompt in writings.long()[:4]:
        ids = writings.with_prompt(prompt)
        found.append(generate(f"second turn of {prompt!r}", [*ids, 70, 71], max_new_tokens=24))
        found.append(generate(f"the first of {prompt!r} again", ids[:-3], max_new_tokens=24))
    return found


def streams(writings: Writings, stops: Sequence[Case]) -> Cases:
    """Whole, cut and stopped answers, of every endpoint."""
    asked = [*(generate(f"whole {prompt!r}", prompt) for prompt in PROMPTS), *stops[::2]]
    asked += [completion(f"whole {prompt!r}", prompt, max_tokens=30) for prompt in PROMPTS[:3]]
    asked += [chat(f"whole {prompt!r}", prompt, max_tokens=30) for prompt in PROMPTS[:3]]
    asked += [completion("n = 2", "cd", n=2, max_tokens=20), generate("in batch", list(PROMPTS[:3]))]
    for prompt in PROMPTS[:6]:
        if stop := writings.straddling(prompt, 11):
            asked.append(completion(f"stopped {prompt!r}", prompt, stop=[stop]))
            asked.append(chat(f"stopped {prompt!r}", prompt, stop=[stop[:1]]))
    intervals = [generate(f"every {n} tokens", "ab", stream_interval=n) for n in (1, 5, 100)]
    return [streamed(case) for case in [*asked, *intervals]]


FIRST = ("plain", "batches", "limits", "one token left", "logit bias", "log-probabilities", "penalties", "grammars")
STOPS = ("stop strings", "stop patterns", "stop tokens", "own ends", "several stops")
DERIVED = (*STOPS, "chat", "prefix cache", "streams")
ALONE = "log-probabilities of tokens"
GROUPS = (*FIRST, ALONE, "refusals", *DERIVED)


def first_groups(place: HttpPlace) -> Groups:
    found = [plain(), batches(place), limits(), chosen_for_certain(), biased(), logprobs(), penalised(), constrained()]
    return dict(zip(FIRST, found, strict=True)) | {ALONE: of_tokens(), "refusals": refusals()}


def derived_groups(place: HttpPlace, answers: Mapping[str, Answer]) -> Groups:
    writings = Writings(place, answers)
    strings = stop_strings(writings, PROMPTS[:6], (5, 12))
    found = [
        strings,
        stop_patterns(writings, PROMPTS[2:8], (7,)),
        stop_tokens(writings, PROMPTS[:6], (6, 13)),
        own_ends(writings),
        stops_of_several_kinds(writings),
        answers_to_chat(writings, answers),
        prefixes(writings),
        streams(writings, strings),
    ]
    return dict(zip(DERIVED, found, strict=True))


# --- comparing

VOLATILE = re.compile(
    r"id|created|.*_time|.*_ts|.*latency|.*throughput|spec_.*|cached_tokens.*|num_retractions|dp_rank|timestamp"
)
"""Keys of what may differ: names of requests, times, drafts, and how much the prefix cache knew."""


def stable(value: Any) -> Any:
    """An answer without what may differ."""
    if isinstance(value, dict):
        return {key: stable(part) for key, part in value.items() if not VOLATILE.fullmatch(key)}
    if isinstance(value, list | tuple):
        return [stable(part) for part in value]
    return re.sub(r"\b[0-9a-f]{32}\b", "…", value) if isinstance(value, str) else value


def whole(case: Case, answer: Answer) -> Any:
    """What a client knows in the end: of a stream, its chunks put together."""
    if answer.status != 200:
        # SGLang counts the slots of a round as part of a prompt.
        return {"status": answer.status, "body": re.sub(r"\d+", "#", json.dumps(answer.body))}
    if not case.body.get("stream"):
        return {"status": answer.status, "body": answer.body}
    events = [event for event in answer.events if "error" not in event]
    errors = [event for event in answer.events if "error" in event]
    found = {"errors": errors, "closed": answer.closed, "usage": [e["usage"] for e in events if e.get("usage")]}
    if case.path == "/generate":
        return found | {"answers": {str(event.get("index", 0)): event for event in events}}
    return found | {"choices": assembled(events)}


def assembled(events: Sequence[Any]) -> dict[str, Any]:
    """The choices of an OpenAI stream: texts and log-probabilities joined, the reason of the last chunk."""
    found: dict[str, Any] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        text = choice["delta"].get("content") if "delta" in choice else choice["text"]
        joined = found.setdefault(str(choice["index"]), {"text": "", "logprobs": [], "finish": None})
        joined["text"] += text or ""
        logprobs = choice.get("logprobs") or {}
        joined["logprobs"] += logprobs.get("content") or logprobs.get("token_logprobs") or []
        if choice["finish_reason"]:
            joined["finish"] = [choice["finish_reason"], choice.get("matched_stop")]
    return found


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two answers differ; log-probabilities may by 1e-4."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(key, ours.get(key, "absent"), theirs.get(key, "absent")) for key in sorted(ours | theirs)]
        return [line for key, one, other in pairs for line in differences(one, other, f"{where}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = list(zip(range(len(ours)), ours, theirs, strict=True))
        return [line for key, one, other in pairs for line in differences(one, other, f"{where}.{key}")]
    if isinstance(ours, float) and isinstance(theirs, float) and ours == pytest.approx(theirs, abs=1e-4, rel=1e-5):
        return []
    return [] if ours == theirs else [f"{where}: {str(ours)[-160:]!r}, without drafts {str(theirs)[-160:]!r}"]


class Comparison:
    """What both servers were asked and answered."""

    def __init__(self, groups: Groups, theirs: Mapping[str, Answer], ours: Mapping[str, Answer]) -> None:
        self.groups, self.theirs, self.ours = groups, theirs, ours

    def check(self, group: str) -> None:
        cases = self.groups[group]
        assert cases
        failed = {}
        for case in cases:
            ours, theirs = (stable(whole(case, found[key(group, case)])) for found in (self.ours, self.theirs))
            if lines := differences(ours, theirs):
                failed[case.name] = lines
        shown = "\n".join(f"{name}\n    " + "\n    ".join(lines[:3]) for name, lines in list(failed.items())[:12])
        assert not failed, f"{len(failed)} of {len(cases)} answers differ:\n{shown}"


def key(group: str, case: Case) -> str:
    return f"{group}: {case.name}"


CACHE = "prefix cache"


def ask(server: Server, groups: Groups, *alone: str) -> dict[str, Answer]:
    """All cases in a random order, 8 at a time; those whose order matters, and the groups ``alone``, one by one."""
    mixed, ordered = [], []
    for group, cases in groups.items():
        asked = ordered if group in (CACHE, ALONE, *alone) else mixed
        asked += [Case(key(group, case), case.path, case.body) for case in cases]
    random.Random(0).shuffle(mixed)
    return server.answers(mixed) | server.answers(ordered, concurrency=1)


def ask_vanilla(place: HttpPlace, server: Server, more: bool) -> tuple[Groups, dict[str, Answer]]:
    """Everything; ``more`` adds the grids."""
    groups = first_groups(place)
    # Without drafts SGLang's penalties depend on what joins a batch; what is right is what it answers alone.
    answers = ask(server, groups, "penalties")
    first = {case.name: answers[key("plain", case)] for case in groups["plain"]}
    derived = derived_groups(place, first) | (grids(place, first) if more else {})
    return groups | derived, answers | ask(server, derived)


# --- tests


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> HttpPlace:
    return make_http_place(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def vanilla(place: HttpPlace) -> tuple[Groups, dict[str, Answer]]:
    with start(place, None) as server:
        return ask_vanilla(place, server, more=False)


@pytest.fixture(scope="module")
def prism(place: HttpPlace, vanilla: object) -> Iterator[Server]:
    with start(place, "prism", "--enable-metrics") as server:
        yield server


@pytest.fixture(scope="module")
def comparison(prism: Server, vanilla: tuple[Groups, dict[str, Answer]]) -> Comparison:
    groups, theirs = vanilla
    return Comparison(groups, theirs, ask(prism, groups))


@pytest.mark.parametrize("group", GROUPS)
def test_answers_are_those_without_drafts(comparison: Comparison, group: str) -> None:
    comparison.check(group)


def test_the_cases_are_worth_asking(comparison: Comparison) -> None:
    """Answers differ from each other, some end by themselves, some are stopped; drafts are accepted, but not all."""
    plain = [comparison.theirs[key("plain", case)].body for case in comparison.groups["plain"][: len(PROMPTS)]]
    assert {answer["meta_info"]["finish_reason"]["type"] for answer in plain} == {"stop", "length"}
    assert len({answer["text"] for answer in plain}) >= len(PROMPTS) - 2
    stopped = [comparison.theirs[key("stop strings", case)].body for case in comparison.groups["stop strings"]]
    assert {answer["meta_info"]["finish_reason"]["type"] for answer in stopped} == {"stop", "length"}
    counts = [
        answer.body["meta_info"].get("spec_correct_drafts_histogram") or []
        for name, answer in comparison.ours.items()
        if name.startswith("plain: ") and "meta_info" in answer.body
    ]
    by_length = [sum(row[n] for row in counts if n < len(row)) for n in range(5)]
    assert by_length[0] > 0
    assert sum(by_length[2:]) > by_length[0] / 4


def test_a_refusal_says_what_is_missing(comparison: Comparison) -> None:
    for case in comparison.groups["refusals"][:2]:
        answer = comparison.ours[key("refusals", case)]
        assert answer.status == 400
        assert "--enable-" in str(answer.body)


def test_the_prefix_cache_is_used(comparison: Comparison) -> None:
    again = comparison.ours[key(CACHE, comparison.groups[CACHE][3])].body["meta_info"]
    assert again["cached_tokens"] >= again["prompt_tokens"] - 2


def test_a_stream_takes_nothing_back(comparison: Comparison) -> None:
    """SGLang's own endpoint sends the text so far: each is a beginning of the next."""
    for case in comparison.groups["streams"]:
        if case.path == "/generate" and isinstance(case.body.get("text"), str):
            texts = [event["text"] for event in comparison.ours[key("streams", case)].events]
            assert all(later.startswith(text) for text, later in itertools.pairwise(texts)), case.name


def by_definition(place: HttpPlace, prompt: str, length: int) -> list[int]:
    """The likeliest tokens under `TOGETHER`, by our own model: what is added is added first, then repetitions are
    scaled, as SGLang's overlapped scheduler does."""
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    written: list[int] = []
    while len(written) < length and END not in written:
        ids = torch.tensor([[*place.tokens(prompt), *written]])
        hidden, _ = target(ids, torch.arange(ids.shape[1])[None])
        logits = target.head(hidden[0, -1])
        counts = torch.bincount(torch.tensor(written, dtype=torch.int64), minlength=len(logits))
        seen = counts > 0
        logits = logits - TOGETHER["frequency_penalty"] * counts - TOGETHER["presence_penalty"] * seen
        factor = torch.where(seen, TOGETHER["repetition_penalty"], 1.0)
        written.append(int(torch.where(logits < 0, logits * factor, logits / factor).argmax()))
    return written


@torch.no_grad()
def test_all_penalties_together_are_what_they_are_defined_to_be(place: HttpPlace, prism: Server) -> None:
    for prompt in PROMPTS[:4]:
        answer = prism.answer(generate("", prompt, **TOGETHER, max_new_tokens=40)).body
        assert answer["output_ids"] == by_definition(place, prompt, 40)


def test_sampled_answers_have_the_length_that_was_asked_for(prism: Server) -> None:
    cases = []
    for most in (1, 2, 5, 6, 7, 23):
        case = generate(f"{most}", "ab", temperature=1, max_new_tokens=most, ignore_eos=True, n=2, top_p=0.95)
        cases.append(case)
    for name, answer in prism.answers(cases).items():
        assert [len(one["output_ids"]) for one in answer.body] == [int(name)] * 2
        assert [one["meta_info"]["completion_tokens"] for one in answer.body] == [int(name)] * 2


def wait_until_idle(server: Server) -> None:
    """The cache is emptied as soon as nothing runs or waits."""
    assert server.client.post("/flush_cache", params={"timeout": 60}).status_code == 200


def total(server: Server, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


LONG = {"max_new_tokens": CONTEXT - 40, "ignore_eos": True}


def test_an_aborted_request_ends_and_says_so(prism: Server) -> None:
    """What was written until then is what would have been written."""
    case = generate("long", "ab", **LONG)
    expected = prism.answer(case).body["output_ids"]
    with prism.client.stream("POST", "/generate", json=case.body | {"stream": True, "rid": "aborted"}) as reply:
        lines = (line for line in reply.iter_lines() if line)
        next(lines)
        assert prism.client.post("/abort_request", json={"rid": "aborted"}).status_code == 200
        *_, last, done = lines
    found = json.loads(last.removeprefix("data: "))
    assert found["meta_info"]["finish_reason"]["type"] == "abort"
    assert found["output_ids"] == expected[: len(found["output_ids"])]
    assert done == "data: [DONE]"
    wait_until_idle(prism)
    assert prism.answer(case).body["output_ids"] == expected


def test_requests_whose_client_has_gone_are_given_up(prism: Server) -> None:
    """Nothing of them is counted as answered, and the next request is."""
    case = generate("long", [[70 + n, 71, 72] for n in range(24)], **LONG)
    counted = "sglang:generation_tokens_total"
    before = total(prism, counted)
    with prism.client.stream("POST", "/generate", json=case.body | {"stream": True}) as reply:
        next(reply.iter_lines())
    wait_until_idle(prism)
    assert prism.answer(generate("short", "cd", max_new_tokens=9)).body["meta_info"]["completion_tokens"] == 9
    assert total(prism, counted) == before + 9


def test_a_server_says_what_it_is_and_how_it_does(place: HttpPlace, prism: Server) -> None:
    prism.answer(generate("long", "ab", **LONG))  # averages are taken every 40 rounds
    info = prism.get("/server_info").json()
    assert info["speculative_algorithm"].startswith("PRISM")
    assert info["internal_states"][0]["prism_ae"]["tree"] == [STEPS, BRANCH, VERIFIED]
    assert info["internal_states"][0]["prism_ae"]["drafter"] == str(place.drafter("prism").resolve())
    model = prism.get("/get_model_info").json()
    assert model["is_generation"]
    assert prism.get("/v1/models").json()["data"][0]["max_model_len"] == CONTEXT
    names = {line.partition("{")[0] for line in prism.get("/metrics").text.splitlines()}
    assert {"sglang:spec_accept_length", "sglang:generation_tokens_total", "sglang:num_running_reqs"} <= names
    assert prism.get("/health").status_code == 200


def test_a_text_may_run_to_the_end_of_the_context(prism: Server) -> None:
    """The slots that a round takes beyond the text stay within the request's row of the table."""
    prompt = [70 + n % 20 for n in range(CONTEXT - 40)]
    ends = {"sampling_params": {"temperature": 0, "ignore_eos": True}}
    answers = [prism.post("/generate", {"input_ids": prompt[:length]} | ends) for length in (440, 470, CONTEXT - 40)]
    assert [answer.status for answer in answers] == [200] * 3
    assert prism.answer(generate("afterwards", "ab", max_new_tokens=3)).status == 200


def test_a_sessions_next_turn_goes_on_where_the_answer_ended(prism: Server) -> None:
    """Not behind a stop that fell into a round."""
    wants = {"temperature": 0, "max_new_tokens": 40, "stop": list("aeiou")}
    for prompt in PROMPTS[:8]:
        session = prism.post("/open_session", {"capacity_of_str_len": 1000}).body
        first = prism.post(
            "/generate", {"text": prompt, "sampling_params": wants, "session_params": {"id": session}}
        ).body
        before = first["meta_info"]["prompt_tokens"] + first["meta_info"]["completion_tokens"]
        link = {"id": session, "rid": first["meta_info"]["id"]}
        ids = {"input_ids": [70, 71, 72], "sampling_params": wants, "session_params": link}
        assert prism.post("/generate", ids).body["meta_info"]["prompt_tokens"] == before + 3
        prism.post("/close_session", {"session_id": session})


def test_the_cache_can_be_emptied(prism: Server, comparison: Comparison) -> None:
    """Then nothing of it is used any more, and what is asked again is answered as before."""
    case = comparison.groups[CACHE][0]
    expected = comparison.theirs[key(CACHE, case)]
    wait_until_idle(prism)
    (load,) = prism.get("/v1/loads").json()["loads"]
    assert load["num_used_tokens"] == 0
    answer = prism.answer(case)
    assert answer.body["meta_info"]["cached_tokens"] == 0
    assert not differences(stable(whole(case, answer)), stable(whole(case, expected)))


# --- heavy


def grids(place: HttpPlace, answers: Mapping[str, Answer]) -> Groups:
    """Every prompt, many places."""
    writings = Writings(place, answers)
    places = range(2, 34, 3)
    return {
        "grid of stop strings": stop_strings(writings, PROMPTS, places),
        "grid of stop patterns": stop_patterns(writings, PROMPTS, places),
        "grid of stop tokens": stop_tokens(writings, PROMPTS, places),
        "grid of streamed stops": [streamed(case) for case in stop_strings(writings, PROMPTS[1::2], places[::2])],
        "grid of penalties": [generate(f"{p!r} {q}", p, **q) for p in PROMPTS for q in PENALTIES],
        "grid of grammars": [generate(f"{p!r} {q}", p, **q) for p in PROMPTS for q in GRAMMARS],
        "end of the context": [
            generate(
                f"{count} tokens", [70, 75, 102] * (count // 3), max_new_tokens=MAX_SEQ_LEN - count, ignore_eos=True
            )
            for count in (300, 450, 480, 489)
        ],
    }


GRIDS = (
    "grid of stop strings",
    "grid of stop patterns",
    "grid of stop tokens",
    "grid of streamed stops",
    "grid of penalties",
    "grid of grammars",
    "end of the context",
)


@pytest.fixture(scope="module")
def large_place(tmp_path_factory: pytest.TempPathFactory) -> HttpPlace:
    return make_http_place(tmp_path_factory.mktemp("models"), ("prism", "prism_star"))


@pytest.fixture(scope="module")
def all_of_vanilla(large_place: HttpPlace) -> tuple[Groups, dict[str, Answer]]:
    with start(large_place, None) as server:
        return ask_vanilla(large_place, server, more=True)


@pytest.fixture(scope="module", params=["prism", "prism_star"])
def server(request: pytest.FixtureRequest, large_place: HttpPlace, all_of_vanilla: object) -> Iterator[Server]:
    with start(large_place, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def all_compared(server: Server, all_of_vanilla: tuple[Groups, dict[str, Answer]]) -> Comparison:
    groups, theirs = all_of_vanilla
    return Comparison(groups, theirs, ask(server, groups))


@pytest.mark.heavy
@pytest.mark.parametrize("group", [*GROUPS, *GRIDS])
def test_all_answers_are_those_without_drafts(all_compared: Comparison, group: str) -> None:
    all_compared.check(group)


@pytest.mark.heavy
def test_the_openai_client_gets_the_same_answers(server: Server, all_of_vanilla: tuple[Groups, Any]) -> None:
    """Completions and chat, whole and streamed, as the client's own types."""
    openai = pytest.importorskip("openai")
    import httpx

    groups, theirs = all_of_vanilla
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", http_client=httpx.Client(trust_env=False), max_retries=0
    ) as client:
        for prompt in PROMPTS[:3]:
            expected = theirs[key("plain", completion(f"{prompt!r}", prompt))].body
            asked = {"model": "default", "temperature": 0, "max_tokens": LENGTH}
            found = client.completions.create(prompt=prompt, **asked)
            assert (found.choices[0].text, found.choices[0].finish_reason, found.usage.completion_tokens) == (
                expected["choices"][0]["text"],
                expected["choices"][0]["finish_reason"],
                expected["usage"]["completion_tokens"],
            )
            expected = theirs[key("plain", chat(f"{prompt!r}", prompt))].body
            messages = [{"role": "user", "content": prompt}]
            found = client.chat.completions.create(messages=messages, **asked)
            assert found.choices[0].message.content == expected["choices"][0]["message"]["content"]
            assert found.usage.completion_tokens == expected["usage"]["completion_tokens"]
            chunks = list(client.chat.completions.create(messages=messages, stream=True, **asked))
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            assert said == expected["choices"][0]["message"]["content"]
        constrained = client.chat.completions.create(
            model="default", temperature=0, messages=[{"role": "user", "content": "ab"}], response_format=FORMAT
        )
        assert set(json.loads(constrained.choices[0].message.content)) == set(SCHEMA["properties"])
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="default", prompt="ab", temperature=-1)
    assert groups


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--enable-custom-logit-processor"], "--enable-custom-logit-processor"),
        (["--disaggregation-mode", "decode"], "--disaggregation-mode"),
        (["--disaggregation-mode", "prefill"], "--disaggregation-mode"),
    ],
)
def test_what_cannot_be_right_is_refused_at_the_start(place: HttpPlace, options: list[str], named: str) -> None:
    said = refused(place, "prism", *options)
    assert re.search(rf"PRISM[^\n]*{named}|{named}[^\n]*PRISM", said), said
