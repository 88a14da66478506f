"""A target's tokenizer, giving the ids and texts that it gives in the authors' evaluation.

The authors load it with transformers 4.40 and ``use_fast=False``. Llama-3 has but one tokenizer, that of
tokenizer.json. For a Llama-2 folder they get the SentencePiece one, which tokenizer.json imitates: that file puts "▁"
before the text after *every* special token ("<s>[INST]" in the middle of a conversation becomes "▁[" …), while the
SentencePiece one puts it at the very beginning alone, unless tokenizer_config.json says ``legacy``. Newer files do as
the SentencePiece one does, but for them a begin marker in the text is a beginning already. So the file is brought to
one form here, and a begin marker is never part of what is encoded.

Which of the two a file is, it says itself ("▁" in what it does to a text first): the class that tokenizer_config.json
names does not, since every version of transformers that saves a folder again names another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prism_ae.errors import CheckpointError, MissingError, PrismError
from prism_ae.models.checkpoints import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, RULES = "tokenizer.json", "tokenizer_config.json"

_SPACE = "▁"
_LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
"""Classes whose file must imitate SentencePiece in a form that is known, if it does at all."""
_MARKS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_EVERYWHERE = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, _REPLACE]}
_FIRST = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "first", "split": False}
_LEGACY_OF = {"first": False, "always": True}
"""A Metaspace's ``prepend_scheme`` -> what it is called in tokenizer_config.json: newer files have the former alone."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a folder's tokenizer_config.json says. The fields' own values are those of a folder without that file.

    Attributes:
        sentencepiece: tokenizer.json imitates SentencePiece in a form that is known.
        legacy: the SentencePiece version puts "▁" before the text after every special token.
        clean_up: spaces before punctuation are taken out of a text that is made from ids (Llama-3's file says so).
        begin: the begin marker, "" if none is named.
        marks: texts of the markers, in the order in which transformers lists them.
    """

    sentencepiece: bool = False
    legacy: bool = False
    clean_up: bool = False
    begin: str = ""
    marks: tuple[str, ...] = ()


def open_tokenizer(folder: Path, written: str = "") -> tuple[Tokenizer, Rules]:
    """The tokenizer in ``folder``, to be called without adding special tokens, and its rules.

    Args:
        written: what a template writes; added tokens in it are special, whatever the file says of them, as are those
            that the rules name.

    Raises:
        MissingError: no tokenizer.json.
        CheckpointError: a file is damaged, the two contradict each other, or how spaces are treated is not known.
    """
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    if not file.exists():
        raise MissingError(f"{file} does not exist", "it belongs to the target's folder; fetch or make it again")
    data = read_json(file)
    rules = _rules(folder, data)
    with as_damage(folder):
        if rules.sentencepiece:
            data = _as_sentencepiece(data, legacy=rules.legacy)
        tokenizer = Tokenizer.from_str(json.dumps(_settled(data, rules.marks, written)))
    # The file may ask for either, transformers does neither unless it is asked to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, rules


def _rules(folder: Path, vocabulary: Mapping[str, Any]) -> Rules:
    """The rules of a folder with this tokenizer.json; raises CheckpointError."""
    path, file = folder / RULES, folder / TOKENIZER
    if not path.exists():
        if _SPACE in _form(vocabulary):
            raise CheckpointError(
                f"{path} does not exist; it says where the tokenizer puts '{_SPACE}'",
                "it belongs to the target's folder: fetch it again, or with 'prism-ae download --official'",
            )
        return Rules()
    data = read_json(path)
    _check_added(data.get("added_tokens_decoder"), vocabulary, path)
    marks = {name: _text(data[name], name, path) for name in _MARKS if data.get(name) is not None}
    kind = _kind(vocabulary)
    if kind in ("prepend", "metaspace") and data.get("add_prefix_space") is False:
        raise CheckpointError(
            f"{path}: add_prefix_space is false, which no version that the ids are compared with does",
            "use the tokenizer files of the target's official repository",
        )
    if kind is None and data.get("tokenizer_class") in _LLAMA:
        raise CheckpointError(
            f"{file}: how it treats spaces is not known, its ids might not be those of the SentencePiece tokenizer: "
            f"{_form(vocabulary)[:200]}",
            "use the tokenizer.json of the target's official repository",
        )
    return Rules(
        sentencepiece=kind in ("prepend", "metaspace"),
        legacy=_legacy(data.get("legacy"), vocabulary),
        clean_up=data.get("clean_up_tokenization_spaces") is True,
        begin="" if data.get("add_bos_token") is False else marks.get("bos_token", ""),
        marks=tuple(marks.values()),
    )


@contextlib.contextmanager
def as_damage(folder: Path) -> Iterator[None]:
    """What the library raises within, when it reads the tokenizer in ``folder`` or uses it, as one CheckpointError.

    For a damaged file it raises bare Exceptions, and where its Rust code panics, what is not even an Exception.
    """
    try:
        yield
    except PrismError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"{folder / TOKENIZER} cannot be used: {str(error)[:300]}", "fetch or make it again"
        ) from error


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


def _settled(data: Mapping[str, Any], marks: Sequence[str], written: str) -> dict[str, Any]:
    """A tokenizer.json that always gives the same ids, and takes the markers of a conversation for special tokens.

    Some files add them as ordinary tokens; then a marker that somebody wrote into an answer would be one.
    """
    added = [
        token | {"special": True} if _is_marker(token, marks, written) else token
        for token in data.get("added_tokens") or []
    ]
    model = data.get("model")
    steady = {"model": {**model, "dropout": None}} if isinstance(model, dict) and model.get("dropout") else {}
    return {**data, **steady, "added_tokens": added}


def _is_marker(token: Any, marks: Sequence[str], written: str) -> bool:
    text = token.get("content") if isinstance(token, dict) else None
    return isinstance(text, str) and (text in marks or (not text.isalnum() and bool(text.strip()) and text in written))


def _as_sentencepiece(data: Mapping[str, Any], *, legacy: bool) -> dict[str, Any]:
    """A tokenizer.json of a known form, with the ids of the SentencePiece version."""
    # In the SentencePiece version special tokens are found in the text as it stands.
    added = [token | {"normalized": False} for token in data.get("added_tokens", [])]
    normalizer, pre_tokenizer = (_EVERYWHERE, None) if legacy else (None, _FIRST)
    return {**data, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}


def _kind(data: Mapping[str, Any]) -> Literal["none", "prepend", "metaspace"] | None:
    """In which form a tokenizer.json imitates SentencePiece, "none" if it does not; None: in one that is not known."""
    if _SPACE not in _form(data):
        return "none"
    normalizer, pre_tokenizer = data.get("normalizer"), data.get("pre_tokenizer")
    if normalizer == _EVERYWHERE and pre_tokenizer is None:
        return "prepend"
    known = [_FIRST | {"prepend_scheme": scheme} for scheme in _LEGACY_OF]
    return "metaspace" if normalizer is None and pre_tokenizer in known else None


def _legacy(said: Any, data: Mapping[str, Any]) -> bool:
    """What tokenizer_config.json says, else what tokenizer.json does, else what transformers takes for said."""
    if said is not None:
        return bool(said)
    scheme = (data.get("pre_tokenizer") or {}).get("prepend_scheme") if _kind(data) == "metaspace" else None
    return _LEGACY_OF.get(str(scheme), True)


def _check_added(named: Any, vocabulary: Mapping[str, Any], where: Path) -> None:
    """Raises CheckpointError for a token that tokenizer_config.json adds and tokenizer.json does not have."""
    tokens = vocabulary.get("added_tokens")
    added = {
        str(token["id"]): token.get("content")
        for token in (tokens if isinstance(tokens, list) else [])
        if isinstance(token, dict) and "id" in token
    }
    for number, token in (named if isinstance(named, dict) else {}).items():
        text = token.get("content") if isinstance(token, dict) else None
        if text is None or added.get(number) != text:
            raise CheckpointError(
                f"{where} says that token {number} is {text!r}, {TOKENIZER} says it is {added.get(number)!r}",
                "the two files belong to different tokenizers: fetch or make both again",
            )


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
