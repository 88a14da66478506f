"""The layouts: one record each for the project's own and for all that the PRISM authors published.

A record says how a folder is recognised, how its config becomes a `DrafterConfig` and the other way round, and by which
rules its names of tensors become ours. Formats as in the authors' artifact (github.com/Akemiiii/prism-mlsys-ae), its
training code, its torch evaluation and its fork of SGLang; stock SGLang loads `SGLANG_EAGLE` and `SGLANG_EAGLE3`, and
`EAGLE` is what the EAGLE repository trains.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from prism_ae.drafters.layouts import configs, describe
from prism_ae.drafters.layouts.records import DRAFT_IDS, MASK, module_shapes
from prism_ae.models.weights import TOKEN_MAP

if TYPE_CHECKING:
    from prism_ae.drafters.config import DrafterConfig

Shapes = dict[str, tuple[int, ...]]

EMBEDDING = "embed_tokens.weight"
"""A copy of the target's embedding, [V, H], in every published layout that has one."""


def _nothing(config: DrafterConfig) -> Shapes:
    return {}


def _none(config: DrafterConfig, data: Mapping[str, Any], names: Collection[str]) -> Collection[str]:
    return ()


def _no_tables(config: DrafterConfig, data: Mapping[str, Any], names: Collection[str]) -> Collection[str]:
    """EAGLE-3 whose draft vocabulary is the target's needs no table of it."""
    tables = ("d2t", MASK)
    return tables if config.draft_vocab_size == config.layer.vocab_size and not {*tables} & {*names} else ()


def _no_bias(config: DrafterConfig, data: Mapping[str, Any], names: Collection[str]) -> Collection[str]:
    """Some of EAGLE's folders have no bias, and say so."""
    return ("fc.bias",) if data.get("bias") is False and "fc.bias" not in names else ()


def _shared(*names: str) -> Callable[[DrafterConfig], Shapes]:
    """Copies of the target's embedding or head."""
    return lambda config: dict.fromkeys(names, (config.layer.vocab_size, config.layer.hidden_size))


def _large_drafter_unused(config: DrafterConfig) -> Shapes:
    """The embedding, and the aliases of whichever module was current when the drafter was saved."""
    renamed = {name.replace("fusion.", "fc."): shape for name, shape in module_shapes(config).items()}
    return _shared(EMBEDDING)(config) | renamed


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one layout maps to the project's own.

    Attributes:
        name: for records and messages.
        says: how its folders are recognised, in words.
        recognises: the same as a function of config.json and the names of all tensors.
        config: makes the sizes; see `configs.Given`.
        describe: config.json for these sizes and this dtype of the weights; ValueError for what the layout cannot say.
        rules: (stored name, name in the file); {m} is a module, {l} a layer, {x} anything. The first that fits counts.
            `TOKEN_MAP` is a file beside the weights.
        unused: tensors that may be there, must have this shape, and are not used.
        absent: of the sizes, config.json and names of the tensors: names in the file that are left out on purpose. An
            absent bias is zero, absent draft ids are all ids of the target.
        offsets: whether EAGLE-3's draft ids are stored as offsets ``d2t``, with a mask ``t2d`` that says the same.
        embedding: whether `EMBEDDING` is written. "required": who reads the layout takes it from nowhere else, and
            drafts with a random one where it is missing. "optional": the config can say that it is there. "": the
            target's is always taken.
    """

    name: str
    says: str
    recognises: Callable[[Mapping[str, Any], Collection[str]], bool]
    config: Callable[[Mapping[str, Any], configs.Given], DrafterConfig]
    describe: Callable[[DrafterConfig, str], dict[str, Any]]
    rules: tuple[tuple[str, str], ...]
    unused: Callable[[DrafterConfig], Shapes] = _nothing
    absent: Callable[[DrafterConfig, Mapping[str, Any], Collection[str]], Collection[str]] = _none
    offsets: bool = False
    embedding: Literal["", "optional", "required"] = ""

    def published(self, stored: str) -> str:
        """The name in the file of a tensor with this stored name."""
        for ours, theirs in self.rules:
            pattern = re.escape(ours).replace(r"\{m\}", r"(?P<m>\d+)").replace(r"\{l\}", r"(?P<l>\d+)")
            if found := re.fullmatch(pattern.replace(r"\{x\}", "(?P<x>.+)"), stored):
                return theirs.format(**found.groupdict())
        raise AssertionError(f"layout {self.name} has no rule for '{stored}'")


def _architecture(name: str) -> Callable[[Mapping[str, Any], Collection[str]], bool]:
    return lambda config, names: config.get("architectures") == [name]


def _is_large_drafter(config: Mapping[str, Any], names: Collection[str]) -> bool:
    return isinstance(config.get("eagle_config"), dict) and any(
        n.startswith(("stepModels.", "stepFCs.")) for n in names
    )


def _is_eagle3(config: Mapping[str, Any], names: Collection[str]) -> bool:
    return any(re.match(r"midlayer\.\D", name) for name in names)


def _is_eagle(config: Mapping[str, Any], names: Collection[str]) -> bool:
    plain = config.get("architectures") in (None, [], ["LlamaForCausalLM"])
    return plain and "fc.weight" in names and any(re.match(r"layers\.\d", name) for name in names)


_SGLANG_MODULES = (
    ("modules.{m}.layers.0.{x}", "midlayer.{m}.{x}"),
    ("modules.{m}.fusion.{x}", "fc{m}.{x}"),
    ("entry.{x}", "fusion_layer.{x}"),
)

OWN = Layout(
    name=configs.FORMAT,
    says=f'"format": "{configs.FORMAT}"',
    recognises=lambda config, names: config.get("format") == configs.FORMAT,
    config=configs.own,
    describe=describe.own,
    rules=(("{x}", "{x}"),),
)
LARGE_DRAFTER = Layout(
    name="torch-large-drafter",
    says='"eagle_config", tensors stepModels.*',
    recognises=_is_large_drafter,
    config=configs.large_drafter,
    describe=describe.large_drafter,
    rules=(
        ("modules.{m}.layers.{l}.{x}", "stepModels.{m}.{l}.{x}"),
        ("modules.{m}.fusion.{x}", "stepFCs.{m}.{x}"),
        ("entry.{x}", "fusion_layer.{x}"),
    ),
    unused=_large_drafter_unused,
    embedding="required",
)
EAGLE3 = Layout(
    name="torch-eagle3",
    says="tensors midlayer.*",
    recognises=_is_eagle3,
    config=configs.eagle3,
    describe=describe.eagle3,
    rules=(
        ("modules.0.embedding_norm.weight", "midlayer.input_layernorm.weight"),
        ("modules.0.{x}", "midlayer.{x}"),
        ("entry.weight", "fc.weight"),
        ("head.weight", "lm_head.weight"),
        ("draft_ids", "d2t"),
        ("norm.weight", "norm.weight"),
    ),
    unused=_shared(EMBEDDING),
    absent=_no_tables,
    offsets=True,
    embedding="optional",
)
SGLANG_EAGLE3 = dataclasses.replace(
    EAGLE3,
    name="sglang-eagle3",
    says=f'"architectures": ["LlamaForCausalLMEagle3"], "{configs.NOTE}"',
    # Others' folders of this architecture may be of the authors' EAGLE-3: those say less.
    recognises=lambda config, names: _architecture("LlamaForCausalLMEagle3")(config, names) and configs.NOTE in config,
    config=configs.sglang_eagle3,
    describe=describe.sglang_eagle3,
    embedding="",
)
SGLANG_LD = Layout(
    name="sglang-ld",
    says='"architectures": ["LlamaForCausalLMLD"]',
    recognises=_architecture("LlamaForCausalLMLD"),
    config=configs.sglang_ld,
    describe=describe.sglang_ld,
    rules=_SGLANG_MODULES,
    unused=_shared(EMBEDDING, "lm_head.weight"),
)
SGLANG_PRISM = Layout(
    name="sglang-prism",
    says='"architectures": ["LlamaForCausalLMPRISM"]',
    recognises=_architecture("LlamaForCausalLMPRISM"),
    config=configs.sglang_prism,
    describe=describe.sglang_prism,
    rules=_SGLANG_MODULES,
    unused=_shared(EMBEDDING, "lm_head.weight"),
)
SGLANG_EAGLE = Layout(
    name="sglang-eagle",
    says='"architectures": ["LlamaForCausalLMEagle"]',
    recognises=_architecture("LlamaForCausalLMEagle"),
    config=configs.sglang_eagle,
    describe=describe.sglang_eagle,
    rules=(
        ("modules.0.layers.{l}.{x}", "layers.{l}.{x}"),
        ("modules.0.fusion.{x}", "fc.{x}"),
        (DRAFT_IDS, TOKEN_MAP),
    ),
    unused=_shared(EMBEDDING, "lm_head.weight"),
    absent=_no_bias,
)
EAGLE = dataclasses.replace(
    SGLANG_EAGLE,
    name="eagle",
    says="tensors fc.* and layers.*",
    recognises=_is_eagle,
)

LAYOUTS = (OWN, LARGE_DRAFTER, SGLANG_EAGLE3, EAGLE3, SGLANG_LD, SGLANG_PRISM, SGLANG_EAGLE, EAGLE)
