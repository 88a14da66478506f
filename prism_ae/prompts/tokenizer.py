"""A target's tokenizer, giving the ids and texts that it gives in the authors' evaluation.

The authors load it with transformers 4.40 and ``use_fast=False``. Llama-3 has but one tokenizer, that of
tokenizer.json. For a Llama-2 folder they get the SentencePiece one, which tokenizer.json imitates: that file puts "▁"
before the text after *every* special token ("<s>[INST]" in the middle of a conversation becomes "▁[" …), while the
SentencePiece one puts it at the very beginning alone, unless tokenizer_config.json says ``legacy``. Newer files do as
the SentencePiece one does, but for them a begin marker in the text is a beginning already. So the file is brought to
one form here, and a begin marker is never part of what is encoded.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.checkpoints import read_json
from prism_ae.errors import CheckpointError, MissingError, PrismError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, RULES = "tokenizer.json", "tokenizer_config.json"

_SPACE = "▁"
_LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
"""Classes that have a SentencePiece version, so that ``use_fast=False`` means something."""
_MARKS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_EVERYWHERE = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, _REPLACE]}
_FIRST = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "first", "split": False}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a folder's tokenizer_config.json says. The fields' own values are those of a folder without that file.

    Attributes:
        sentencepiece: the class is one whose SentencePiece version the authors get.
        legacy: that version puts "▁" before the text after every special token.
        clean_up: spaces before punctuation are taken out of a text that is made from ids (Llama-3's file says so).
        begin: the begin marker, "" if none is named.
        marks: texts of the markers, in the order in which transformers lists them.
    """

    sentencepiece: bool = False
    legacy: bool = False
    clean_up: bool = False
    begin: str = ""
    marks: tuple[str, ...] = ()


def read_rules(folder: Path) -> Rules:
    """The rules of the tokenizer in ``folder``.

    Raises:
        CheckpointError: the file is damaged; or there is none, and tokenizer.json imitates SentencePiece.
    """
    path = folder / RULES
    if not path.exists():
        if (folder / TOKENIZER).exists() and _SPACE in _form(read_json(folder / TOKENIZER)):
            raise CheckpointError(
                f"{path} does not exist; it says where the tokenizer puts '{_SPACE}'",
                "it belongs to the target's folder: fetch it again, or with 'prism-ae download --official'",
            )
        return Rules()
    data = read_json(path)
    marks = {name: _text(data[name], name, path) for name in _MARKS if data.get(name) is not None}
    legacy = data.get("legacy")
    return Rules(
        sentencepiece=data.get("tokenizer_class") in _LLAMA,
        legacy=legacy is None or bool(legacy),
        clean_up=data.get("clean_up_tokenization_spaces") is True,
        begin=marks.get("bos_token", ""),
        marks=tuple(marks.values()),
    )


def read_tokenizer(folder: Path, rules: Rules) -> Tokenizer:
    """The tokenizer in ``folder``, to be called without adding special tokens.

    Raises:
        MissingError: no tokenizer.json.
        CheckpointError: a damaged one, or one that imitates SentencePiece in a form that is not known.
    """
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    if not file.exists():
        raise MissingError(f"{file} does not exist", "it belongs to the target's folder; fetch or make it again")
    try:
        if rules.sentencepiece:
            tokenizer = Tokenizer.from_str(json.dumps(_as_sentencepiece(read_json(file), rules.legacy, file)))
        else:
            tokenizer = Tokenizer.from_file(str(file))
    except PrismError:
        raise
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise CheckpointError(f"{file} cannot be read: {error}", "fetch or make it again") from error
    # The file may ask for either, transformers does neither unless it is asked to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def answer_text(tokenizer: Tokenizer, rules: Rules, stop: Sequence[str], ids: Sequence[int]) -> str:
    """An answer as text, as the authors make it before they feed it back; whitespace around it is left.

    Special tokens are first written as text; then the text is cut at the first of ``stop`` and every marker is taken
    out of it, also where the target wrote one letter by letter. Other special tokens stay, and become the same tokens
    again.

    Args:
        stop: texts that end an answer. Where one is the very beginning it is only taken out.
        ids: without end tokens.
    """
    if _spaced(tokenizer):
        text = _joined([tokenizer.id_to_token(token) or "" for token in ids])
    else:
        text = tokenizer.decode(list(ids), skip_special_tokens=False)
    if rules.clean_up:
        for marked in _CLEANED:
            text = text.replace(marked, marked.strip())
    for end in stop:
        place = text.find(end)
        text = text[:place] if place > 0 else text
    for mark in dict.fromkeys((*rules.marks, *stop)):
        text = text.replace(mark, "")
    return text


def _as_sentencepiece(data: Mapping[str, Any], legacy: bool, where: Path) -> dict[str, Any]:
    """A tokenizer.json whose ids are those of the SentencePiece version; raises CheckpointError."""
    if _SPACE not in _form(data):
        return dict(data)
    metaspace = data.get("normalizer") is None and (data.get("pre_tokenizer") or {}).get("type") == "Metaspace"
    prepend = data.get("normalizer") == _EVERYWHERE and data.get("pre_tokenizer") is None
    if not (metaspace or prepend):
        raise CheckpointError(
            f"{where}: how it treats spaces is not known, its ids might not be those of the SentencePiece tokenizer: "
            f"{_form(data)[:200]}",
            "use the tokenizer.json of the target's official repository",
        )
    # In the SentencePiece version special tokens are found in the text as it stands.
    added = [token | {"normalized": False} for token in data.get("added_tokens", [])]
    normalizer, pre_tokenizer = (_EVERYWHERE, None) if legacy else (None, _FIRST)
    return {**data, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}


def _form(data: Mapping[str, Any]) -> str:
    """What a tokenizer.json does to a text before it is cut into pieces, as JSON."""
    return json.dumps([data.get("normalizer"), data.get("pre_tokenizer")], ensure_ascii=False)


def _spaced(tokenizer: Tokenizer) -> bool:
    """Whether pieces spell spaces as "▁" and unknown letters as bytes."""
    return bool(getattr(tokenizer.model, "byte_fallback", False))


def _joined(pieces: Sequence[str]) -> str:
    """The text of SentencePiece's pieces: of a run of byte pieces, what is a character is one, each other byte is
    U+FFFD (tokenizers' own decoder gives up the whole run, as at an answer's limit in the middle of a second emoji)."""
    text, run = "", b""
    for piece in [*pieces, ""]:
        if match := _BYTE.fullmatch(piece):
            run += bytes.fromhex(match[1])
            continue
        while run:
            length = next((n for n in range(1, 5) if _is_character(run[:n])), 0)
            text += run[:length].decode() if length else "\ufffd"
            run = run[length or 1 :]
        text += piece.replace(_SPACE, " ")
    return text


def _is_character(part: bytes) -> bool:
    try:
        return len(part.decode()) == 1
    except UnicodeDecodeError:
        return False


def _text(value: Any, name: str, where: Path) -> str:
    """A marker is named by its text, or by a record that holds it."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        raise CheckpointError(f"{where}: '{name}' must be a text, got {value!r}"[:300], "fetch the file again")
    return text
