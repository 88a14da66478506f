"""From a layout's config.json to a `DrafterConfig`.

What a folder does not say (which hidden states of the target PRISM* and EAGLE-3 read) the caller says: `Given`.
Nothing is guessed: what neither says is an error, and so is a key that changes the arithmetic and is not honoured (see
`llama_keys`). In a published layout that this project wrote the hidden states stand under `NOTE`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_ae.drafters.config import STORED_NAMES, DrafterConfig, layers_before, states_behind
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.errors import CheckpointError
from prism_ae.models.config import HF_ROPE_THETA, LlamaConfig, read_rope
from prism_ae.models.config_keys import check_keys, refused
from prism_ae.models.weights import AGAIN

FORMAT = "prism-ae-drafter-1"

NOTE = "prism_ae_drafter"
"""Key in the config.json of a published layout: ``{"capture": [...]}``, the hidden states that the drafter reads, or in
SGLang's of EAGLE-2 ``{"draft_vocab_size": D}``, how many tokens the file beside it lists (`token_map`). Where it
stands, the folder was written by this project, and ``rope_theta`` is the base that the drafter was trained with."""

EAGLE3_ROPE_THETA = 10000.0
"""The base of the authors' EAGLE-3 training code (Akemiiii/prism-mlsys-ae at 3b00014, Eagle3/traineagle3/cnets.py),
whatever the config says; Eagle3/train/Llama-3-8B/Eagle3_config.json, copied beside the checkpoint for evaluation, says
500000, which lowers acceptance."""

_AUTHORS_EAGLE3 = re.compile(r"Llama-3-8B-drafter/Eagle3-\d+k")
"""The places of the authors' EAGLE-3 in their model hub, as the paper suite names them."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What besides config.json determines the sizes.

    Attributes:
        names: of all tensors.
        capture: hidden states of the target that are read at step 0, where the layout does not say; () if unknown.
        rope_theta: RoPE base to use, None for the one the drafter was trained with.
        target: its sizes, None where they are not known.
        where: the config file, for messages.
        authors_eagle3: whether the folder is an EAGLE-3 of the authors', see `is_authors_eagle3`.
        sizes_only: whether a RoPE base that nobody names may stay open: no tensor is read.
    """

    names: Collection[str]
    capture: tuple[int, ...]
    rope_theta: float | None
    target: TargetSizes | None
    where: str
    authors_eagle3: bool
    sizes_only: bool


def is_authors_eagle3(folder: Path, data: Mapping[str, Any]) -> bool:
    """Whether a folder in EAGLE-3's layout is one that the authors published, by its place in their model hub.

    Nothing in it tells it from others' of the same layout, whose config.json says the base they were trained with.
    """
    place = folder.absolute()  # a link's own name counts
    return NOTE not in data and bool(_AUTHORS_EAGLE3.fullmatch(f"{place.parent.name}/{place.name}"))


def own(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    fields = {name: value for name, value in data.items() if name != "format"}
    _only({STORED_NAMES.get(field.name, field.name) for field in dataclasses.fields(DrafterConfig)}, fields, given, "")
    _only({field.name for field in dataclasses.fields(LlamaConfig)}, fields["layer"], given, "layer.")
    _bounded(fields["modules"], given, "modules")
    layer = LlamaConfig.from_fields(fields["layer"], given.where)
    _bounded(layer.num_hidden_layers, given, "num_hidden_layers")
    if given.rope_theta:
        layer = dataclasses.replace(layer, rope_theta=given.rope_theta)
    capture, mapping = tuple(fields.pop("capture")), tuple(fields["step_mapping"])
    return DrafterConfig(**fields | {"layer": layer, "aux_hidden_layers": capture, "step_mapping": mapping})


def large_drafter(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    """PRISM, PRISM*, EAGLE-2 and HASS (with stacked layers: HASS-2, HASS-3) as the torch code saves them."""
    check_keys(data, given.where, ("eagle_config", "num_step_models", "num_steps", "step_mapping", NOTE))
    fields = data["eagle_config"]
    modules = _bounded(data["num_step_models"], given, "num_step_models")
    steps = data["step_mapping"]
    if len(steps) != data["num_steps"] or list(steps) != [str(step) for step in range(len(steps))]:
        raise CheckpointError(f"{given.where}: step_mapping does not name the {data['num_steps']} steps from 0 on")
    mapping = shortest(tuple(steps.values()))
    starred = any(name.startswith("fusion_layer.") for name in given.names)
    layer = _layer(fields, given, fields["num_hidden_layers"])
    return DrafterConfig("eagle", layer, modules, mapping, _capture(data, given) if starred else ())


def eagle3(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    _check_eagle3_keys(data, given)
    if given.rope_theta is None and given.authors_eagle3:
        given = dataclasses.replace(given, rope_theta=EAGLE3_ROPE_THETA)
    usual = None if NOTE in data else HF_ROPE_THETA
    layer = _layer(data, given, data["num_hidden_layers"], _EAGLE3_KEYS, usual)
    draft_vocab_size = data.get("draft_vocab_size")
    if draft_vocab_size is None:
        draft_vocab_size = layer.vocab_size
    capture = _capture(data, given)
    if data.get("num_aux_hidden_states") not in (None, len(capture)):
        raise CheckpointError(
            f"{given.where}: num_aux_hidden_states is {data['num_aux_hidden_states']!r}, where hidden states "
            f"{list(capture)} of the target are to be read"
        )
    return DrafterConfig("eagle3", layer, aux_hidden_layers=capture, draft_vocab_size=draft_vocab_size)


_EAGLE3_KEYS = ("bias", "draft_vocab_size", "eagle_config", "num_aux_hidden_states", "target_hidden_size", NOTE)
"""Read besides a Llama's. ``bias`` is about tensors, each of which is used or refused."""


def _check_eagle3_keys(data: Mapping[str, Any], given: Given) -> None:
    """Raises CheckpointError for what would be another EAGLE-3 than the one that is computed."""
    if data.get("target_hidden_size") not in (None, data["hidden_size"]):
        raise refused("target_hidden_size", data["target_hidden_size"], given.where)
    if data.get("tie_word_embeddings") and NOTE not in data:
        raise refused("tie_word_embeddings", value=True, where=given.where)
    said = data.get("eagle_config")
    if said is None:
        return
    if not isinstance(said, Mapping):
        raise refused("eagle_config", said, given.where)
    for key, value in said.items():
        off = value is None or value is False
        if off if key == "use_aux_hidden_state" else not off and key != LAYER_IDS:
            raise refused(f"eagle_config.{key}", value, given.where)


LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
"""Key of ``eagle_config``: layers of the target, from 0, whose outputs EAGLE-3 reads."""


def sglang_capture(states: Sequence[int]) -> dict[str, Any]:
    """The ``eagle_config`` by which SGLang captures these hidden states of a target."""
    return {"use_aux_hidden_state": True, LAYER_IDS: layers_before(states)}


def said_capture(data: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """The hidden states that a foreign EAGLE-3's config.json says it reads; () where it does not say."""
    said = data.get("eagle_config")
    layers = said.get(LAYER_IDS) if isinstance(said, Mapping) else None
    if layers is None or layers == []:
        return ()
    if not isinstance(layers, list) or any(type(layer) is not int or layer < 0 for layer in layers):
        raise refused(f"eagle_config.{LAYER_IDS}", layers, where)
    return states_behind(layers)


def sglang_eagle3(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    """EAGLE-3 as this project writes it for stock SGLang, which captures the outputs of the layers that are named."""
    config = eagle3(data, given)
    layers = data["eagle_config"][LAYER_IDS]
    if states_behind(layers) != config.aux_hidden_layers:
        raise CheckpointError(
            f"{given.where}: {LAYER_IDS} {layers} are not the layers before the hidden states "
            f"{list(config.aux_hidden_layers)} of {NOTE}"
        )
    return config


def sglang_ld(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    """PRISM as the authors' fork of SGLang serves it: module 0 at step 0, module 1 at all later ones."""
    modules = _sglang_modules(given.names)
    return DrafterConfig("eagle", _layer(data, given, 1, (NOTE,)), modules, tuple(range(modules)))


def sglang_prism(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    """PRISM* as the authors' fork of SGLang serves it."""
    return dataclasses.replace(sglang_ld(data, given), aux_hidden_layers=_capture(data, given))


def sglang_eagle(data: Mapping[str, Any], given: Given) -> DrafterConfig:
    """EAGLE-2 and HASS as SGLang serves them."""
    layer = _layer(data, given, data["num_hidden_layers"], (NOTE,))
    if NOTE not in data:
        return DrafterConfig("eagle", layer)
    note = data[NOTE]
    if not isinstance(note, dict) or note.keys() != {"draft_vocab_size"}:
        raise CheckpointError(f"{given.where}: {NOTE} is {str(note)[:80]!r}, expected {{'draft_vocab_size': D}}", AGAIN)
    return DrafterConfig("eagle", layer, draft_vocab_size=_positive(note["draft_vocab_size"], given.where))


def _positive(size: Any, where: str) -> int:
    if type(size) is not int or size < 1:
        raise CheckpointError(f"{where}: draft_vocab_size is {size!r}, not a positive integer", AGAIN)
    return size


def check_sizes(config: DrafterConfig) -> None:
    """Raises ValueError for what no drafter is, beside its layers (`LlamaConfig`): JSON may hold anything."""
    size = config.draft_vocab_size
    if (size is not None or config.cell == "eagle3") and (type(size) is not int or size < 1):
        raise ValueError(f"draft_vocab_size is {size!r}, not a positive integer")
    if config.cell not in ("eagle", "eagle3"):
        raise ValueError(f"cell {config.cell!r} is unknown")
    for name, values in (("step_mapping", config.step_mapping), ("capture", config.aux_hidden_layers)):
        if any(type(value) is not int or value < 0 for value in values):
            raise ValueError(f"{name} {values} are not integers from 0 on")


def _layer(
    fields: Mapping[str, Any],
    given: Given,
    num_hidden_layers: Any,
    used: Collection[str] = (),
    usual_theta: float | None = None,
) -> LlamaConfig:
    """Sizes of a drafter's layers, from fields as in Hugging Face's Llama config.

    Args:
        used: keys that the layout reads besides a Llama's.
        usual_theta: the RoPE base where none is named, None if that is to be an error for targets of another base.
    """
    theta = given.rope_theta or read_rope(fields, given.where)[0] or usual_theta
    base = given.target.rope_theta if given.target else None
    if theta is None and base != HF_ROPE_THETA and not given.sizes_only:
        raise CheckpointError(
            f"{given.where}: rope_theta is missing, and the target's is {base or 'not known'}",
            "say which one the drafter was trained with: rope_theta" + ("" if base else "; or name its target"),
        )
    layers = _bounded(num_hidden_layers, given, "num_hidden_layers")
    if "draft_vocab_size" not in used and fields.get("draft_vocab_size") not in (None, fields["vocab_size"]):
        raise refused("draft_vocab_size", fields["draft_vocab_size"], given.where)
    hf = {**fields, "architectures": None, "num_hidden_layers": layers}
    config = LlamaConfig.from_hf(hf, given.where, {*used, "bias", "draft_vocab_size"})
    return dataclasses.replace(config, rope_theta=theta or HF_ROPE_THETA)


def _capture(data: Mapping[str, Any], given: Given) -> tuple[int, ...]:
    capture = noted(data, given.where) if NOTE in data else said_capture(data, given.where) or given.capture
    if not capture:
        raise CheckpointError(
            f"{given.where}: which hidden states of the target the drafter reads is not in its folder",
            "say them: capture of the suite's target, or --capture of 'prism-ae convert'",
        )
    return capture


def noted(data: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """The hidden states that this project noted in a published layout."""
    note = data[NOTE]
    if not isinstance(note, dict) or not isinstance(note.get("capture"), list):
        raise CheckpointError(f"{where}: {NOTE} is {str(note)[:80]!r}, expected {{'capture': [...]}}", AGAIN)
    return tuple(note["capture"])


def _only(known: Collection[str], fields: Mapping[str, Any], given: Given, inside: str) -> None:
    for key, value in fields.items():
        if key not in known:
            raise refused(f"{inside}{key}", value, given.where)


def _bounded(value: Any, given: Given, key: str) -> int:
    """A count, checked before anything is repeated that often: each counted thing has tensors."""
    if type(value) is not int or not 0 < value <= len(given.names):
        raise CheckpointError(f"{given.where}: {key} is {value!r}, which the {len(given.names)} tensors do not fit")
    return value


def shortest(mapping: tuple[int, ...]) -> tuple[int, ...]:
    """The same mapping without repeats at its end: the last entry counts for all later steps."""
    while len(mapping) > 1 and mapping[-1] == mapping[-2]:
        mapping = mapping[:-1]
    return mapping


def _sglang_modules(names: Collection[str]) -> int:
    """Modules 0, 1, … that have any tensor. At least two: a missing one is then missed by name."""
    modules = 0
    while any(name.startswith((f"midlayer.{modules}.", f"fc{modules}.")) for name in names):
        modules += 1
    return max(modules, 2)
