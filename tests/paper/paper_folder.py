"""The paper suite's models folder in small: every published folder, in its published layout, with tiny random models.

Names, layouts and what surrounds the tensors are those of the authors' model hub; sizes are not. Targets have the
published 32 layers, because PRISM* and EAGLE-3 read hidden states by their number.

As a program: ``python tests/paper/paper_folder.py FOLDER``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from fitted import make_drafter, make_small, scale_layers, written
from published import authors_eagle3, large_drafter, sglang_eagle, sglang_modules
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, published_state, target_names
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
SCALES = [scale.name for scale in PAPER.scales]
QUESTIONS = 80
LIKELY = 7
"""Tokens that an answer mostly consists of, beside its end."""
VOCABULARY = {"llama-2": 1000, "llama-3": 1000}


def llama_2_tokenizer() -> Tokenizer:
    """As Llama-2's: pieces of text with a visible space, bytes for the rest, a begin marker added."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY["llama-2"], special_tokens=["<unk>", "<s>", "</s>", *bytes_])
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in _texts()], trainer)
    # Trained as one special token each; Llama-2's byte tokens are plain entries of the vocabulary.
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in ("<unk>", "<s>", "</s>")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def llama_3_tokenizer() -> Tokenizer:
    """As Llama-3's: bytes as letters, special tokens behind the vocabulary, a begin marker added."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY["llama-3"] - len(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    begin = tokenizer.token_to_id(special[0])
    tokenizer.post_processor = processors.TemplateProcessing(f"{special[0]} $A", special_tokens=[(special[0], begin)])
    return tokenizer


TOKENIZERS = {
    True: {"tokenizer_class": "LlamaTokenizer", "legacy": False, "bos_token": "<s>", "eos_token": "</s>"},
    False: {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": True,
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
    },
}
"""What a folder's tokenizer_config.json says as far as it decides ids: Llama-2's, and Llama-3's."""


def _texts() -> list[str]:
    return [PAPER.system_prompt, "[INST] <<SYS>> <</SYS>> [/INST]", *(" ".join(turns) for turns in _questions("", 2))]


@dataclasses.dataclass(frozen=True)
class Original:
    """A published target: what its config.json says beside the sizes, and how it ends an answer."""

    config: LlamaConfig
    says: dict[str, Any]
    end: str
    small_window: int
    small_says: dict[str, Any]


def _config(role: str, kv_heads: int, theta: float, window: int) -> LlamaConfig:
    return LlamaConfig(VOCABULARY[role], 32, 48, 32, 4, kv_heads, 1e-5, theta, window)


ORIGINALS = {
    # Llama-2's names no base of its rotary positions.
    "llama-2": Original(
        _config("llama-2", 4, 10000.0, 4096),
        {"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16", "rope_theta": None},
        "</s>",
        2048,
        {"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32", "rope_theta": None},
    ),
    "llama-3": Original(
        _config("llama-3", 2, 500000.0, 8192),
        {"torch_dtype": "bfloat16"},
        "<|eot_id|>",
        131072,
        {
            "torch_dtype": "bfloat16",
            "tie_word_embeddings": True,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
    ),
}


def make_target(role: str, tokenizer: Tokenizer) -> Llama:
    """Most answers end after a few tokens, here sooner, there later; some do not."""
    original = ORIGINALS[role]
    torch.manual_seed(8)
    target = Llama(original.config)
    scale_layers(target, 2.0)
    end = tokenizer.token_to_id(original.end)
    likely = torch.cat([torch.randperm(original.config.vocab_size - 8)[:LIKELY], torch.tensor([end])])
    with torch.no_grad():
        target.embedding.weight.normal_()
        target.head.weight.normal_(std=0.1)
        # Each token is mostly followed by one of a few: by which, its embedding decides, and a little what was before.
        asked = tokenizer.encode(PAPER.templates[PAPER.target_of(role).template].later).ids[-1]
        followed = torch.randint(len(likely), (original.config.vocab_size,))
        followed[asked] = 0  # no answer is empty
        followed[likely[:LIKELY]] = torch.arange(1, LIKELY + 1)  # nor goes round in circles
        target.head.weight.index_add_(0, likely[followed], target.embedding.weight)
        target.head.weight *= 0.2
    return target.eval().requires_grad_(False)


def write_model(folder: Path, model: Llama, tokenizer: Tokenizer, says: dict[str, Any], form: str) -> None:
    """A target or small model as published; ``form`` is "shards" or "pickled"."""
    folder.mkdir(parents=True)
    config = {key: value for key, value in (model.config.to_hf() | says).items() if value is not None}
    del config["head_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZERS[tokenizer.token_to_id("</s>") is not None]))
    state = published_state(model, target_names(model.config), model.config)
    if says.get("tie_word_embeddings"):
        state.pop("lm_head.weight", None)
    dtype = getattr(torch, says["torch_dtype"])
    state = {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
    if form == "pickled":
        torch.save(state, folder / "pytorch_model.bin")
        return
    half, weight_map = len(state) // 2, {}
    for number, names in enumerate([list(state)[:half], list(state)[half:]], 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_drafter(folder: Path, written_as: tuple[dict[str, Any], dict[str, Tensor]], pickled: bool) -> None:
    """A drafter's folder, in half precision but for ids and masks."""
    data, state = written_as
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(data))
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


def drafter_configs(role: str) -> dict[str, DrafterConfig]:
    """The suite's names of drafters -> what is published under them for a target."""
    target = PAPER.target_of(role)
    one, two = (dataclasses.replace(ORIGINALS[role].config, num_hidden_layers=layers) for layers in (1, 2))
    found = {
        "eagle2": DrafterConfig("eagle", one),
        "hass": DrafterConfig("eagle", one),
        "prism": DrafterConfig("eagle", one, 2, (0, 1)),
        "prism_star": DrafterConfig("eagle", one, 2, (0, 1), target.capture),
    }
    if role == "llama-3":
        trained = dataclasses.replace(one, rope_theta=10000.0)
        found["hass2"] = DrafterConfig("eagle", two)
        found["eagle3"] = DrafterConfig("eagle3", trained, 1, (0,), target.eagle3_capture, one.vocab_size // 2)
    return found


def fit_steps(drafter: str, scale: str) -> int:
    """A stand-in for training: more of it at larger scales and for better drafters."""
    better = {"eagle2": 4, "hass": 8, "hass2": 8, "eagle3": 10, "prism": 12, "prism_star": 14}
    return better[drafter] + 4 * SCALES.index(scale)


def write_paper_folder(folder: Path, scales: list[str] | None = None) -> None:
    """All of it below ``folder``; with ``scales``, torch drafters of these alone."""
    for role, tokenizer in (("llama-2", llama_2_tokenizer()), ("llama-3", llama_3_tokenizer())):
        record, original = PAPER.target_of(role), ORIGINALS[role]
        target = make_target(role, tokenizer)
        says = dict(original.says)
        says.setdefault("bos_token_id", tokenizer.token_to_id("<|begin_of_text|>"))
        says.setdefault("eos_token_id", tokenizer.token_to_id("<|end_of_text|>"))
        write_model(folder / record.folder, target, tokenizer, says, "shards")
        small = make_small(target, layers=2)
        small_says = original.small_says | {"max_position_embeddings": original.small_window}
        for key in ("bos_token_id", "eos_token_id"):
            small_says.setdefault(key, says[key])
        form = "pickled" if role == "llama-2" else "shards"
        write_model(folder / record.small_folder, small, tokenizer, small_says, form)
        texts = written(target, 24, 32)
        for name, config in drafter_configs(role).items():
            for scale in scales or SCALES:
                drafter = make_drafter(config, target, texts, fit_steps(name, scale))
                write_published(folder, role, name, scale, drafter)
    write_questions(folder / "benchmarks")


def write_published(folder: Path, role: str, name: str, scale: str, drafter: Drafter) -> None:
    """A drafter in every folder that the authors published of it: for torch, and at 800k for SGLang."""
    record, target = PAPER.drafters[name], PAPER.target_of(role)
    if record.folder:
        place = folder / record.folder.format(drafters=target.drafter_folder, small="", scale=scale)
        write_drafter(place, authors_eagle3(drafter) if name == "eagle3" else large_drafter(drafter), pickled=True)
    for served in record.served:
        if (served.role, served.scale) == (role, scale):
            layout = sglang_modules if drafter.config.modules > 1 else sglang_eagle
            write_drafter(folder / served.folder, layout(drafter), pickled=False)


def write_questions(folder: Path) -> None:
    """Made-up questions in the benchmarks' files."""
    for benchmark in PAPER.benchmarks.values():
        path = folder / benchmark.file
        path.parent.mkdir(parents=True)
        lines = [
            json.dumps({"question_id": number, "category": benchmark.name, "turns": turns})
            for number, turns in enumerate(_questions(benchmark.label, benchmark.turns))
        ]
        path.write_text("\n".join(lines))  # without a newline at the end, as some of the published files


def _questions(topic: str, turns: int) -> list[list[str]]:
    things = ("apples", "rivers", "clouds", "engines", "letters", "stones", "songs", "ships")
    doings = ("count", "compare", "describe", "sort", "explain", "draw", "sum up", "translate", "repeat", "weigh")
    asked = [f"{topic}: {doing} the {thing}." for doing in doings for thing in things]
    return [[text, f"Now {text.lower()} Again, please."][:turns] for text in asked[:QUESTIONS]]


if __name__ == "__main__":
    write_paper_folder(Path(sys.argv[1]))
