"""Tiny random models that a whole server can be asked everything of.

As in `sglang_models`, but with a byte-level vocabulary like Llama-3's: it can write JSON and digits, its longer
tokens overlap each other, so that stop strings begin inside of one token and end inside of another, and a letter of
two bytes takes two tokens. There is a chat template, and some answers end by themselves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import torch
from fitted import make_drafter, scale_layers, written
from sglang_prism.sglang_models import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prism_ae.drafters.config import DrafterConfig
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama

BEGIN, END = 1, 2
SPECIAL = ("<unk>", "<s>", "</s>")
PRINTABLE = "".join(map(chr, range(32, 127)))
ALPHABET = PRINTABLE + "\nÃ©"
"""Bytes that are tokens, as Latin-1; the last two together are the letter é in UTF-8."""

MERGES = ("t h", "th e", "h e", "i n", "in g", "e r", "o n", "a n", "an d", "r e", "1 2", "12 3", "Ġ a", "Ġ the")
"""In the notation of byte-level tokenizers, where Ġ is a space."""

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
FIRST = len(SPECIAL) + len(PRINTABLE) + 1
"""The first half of é."""

WORDS = len(SPECIAL) + len(ALPHABET) + len(MERGES)
TARGET = LlamaConfig(WORDS, 48, 64, 4, 4, 2, 1e-5, 10000.0, 512)
LAYER = dataclasses.replace(TARGET, num_hidden_layers=1)
DRAFTERS = {
    "prism": DrafterConfig("eagle", LAYER, 2, (0, 1)),
    "prism_star": DrafterConfig("eagle", LAYER, 2, (0, 1), (1, 2, 3)),
}
FIT = 60


@dataclasses.dataclass(frozen=True)
class HttpPlace:
    """A folder with ``target`` and a folder per drafter."""

    folder: Path
    tokenizer: Tokenizer

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def drafter(self, name: str) -> Path:
        return self.folder / name

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids


def make_http_place(folder: Path, drafters: Collection[str] = ("prism",)) -> HttpPlace:
    """Write target, tokenizer and the drafters of these names into ``folder``."""
    torch.manual_seed(0)
    target = make_target()
    tokenizer = save_target_with_words(folder / "target", target)
    texts = written(target, 32, 48)
    for name in drafters:
        save(folder / name, make_drafter(DRAFTERS[name], target, texts, FIT))
    return HttpPlace(folder, tokenizer)


def make_target() -> Llama:
    """Its likeliest successor of a token is the next in a random order, most of the time."""
    target = Llama(TARGET)
    scale_layers(target, 1.8)
    order = torch.randperm(WORDS - len(SPECIAL)) + len(SPECIAL)
    with torch.no_grad():
        target.embedding.weight.normal_()
        target.head.weight.normal_()
        target.head.weight[order.roll(-1)] += 1.2 * target.embedding.weight[order]
        target.head.weight[FIRST + 1] = 2 * target.embedding.weight[FIRST]  # halves of a letter follow each other
        target.head.weight[: BEGIN + 1] = 0  # neither can be seen in a text
        target.head.weight[END] *= 2.6  # answers should end, but not soon
    return target


def save_target_with_words(folder: Path, target: Llama) -> Tokenizer:
    """The target with its tokenizer and chat template."""
    tokenizer = make_tokenizer()
    folder.mkdir()
    save_target(folder, target, {"bos_token_id": BEGIN, "eos_token_id": END})
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[0],
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1))
    return tokenizer


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE, which splits nothing before it merges."""
    as_written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges = [tuple(merge.split()) for merge in MERGES]
    singles = [as_written.pre_tokenize_str(character)[0][0] for character in PRINTABLE + "\n"]
    letters = as_written.pre_tokenize_str("é")[0][0]
    names = [*SPECIAL, *singles, *letters, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = as_written
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    assert tokenizer.get_vocab_size() == WORDS
    return tokenizer
