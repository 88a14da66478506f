"""A drafter is the same one in every layout it is written in, and that layout is the one its authors write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    AUTHORS_PLACE,
    CAPTURE,
    DRAFTERS,
    TARGET,
    WRITERS,
    change_config,
    eagle3,
    make_drafter,
    make_target,
    read_state,
    repack,
    write,
    write_state,
)
from raising import raises

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.configs import NOTE
from prism_ae.drafters.layouts.read import read_config, read_drafter, read_layout
from prism_ae.drafters.layouts.records import StoredDrafter, TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3, LARGE_DRAFTER, OWN, SGLANG_EAGLE, SGLANG_EAGLE3, SGLANG_LD, Layout
from prism_ae.drafters.layouts.write import FORMS, cast, in_layout, layout_for, write_files
from prism_ae.drafters.model import Drafter
from prism_ae.engines.pairs import make_pair
from prism_ae.errors import CheckpointError, UsageError
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import Llama3Rope
from prism_ae.models.llama import Llama
from prism_ae.sglang_prism.description import KEY, ResolvedTarget, describe, published_capture
from prism_ae.suites.load import load_suite

CASES = {case: kind for case, (kind, _) in WRITERS.items()} | {f"own {kind}": kind for kind in DRAFTERS}
SIZES = TargetSizes.of(TARGET)


def form_of(case: str) -> str:
    return "huggingface" if case.startswith("torch ") else "sglang"


def write_in(folder: Path, stored: StoredDrafter, layout: Layout) -> Path:
    embedding = make_target().embedding.weight if layout.embedding == "required" else None
    folder.mkdir()
    write_files(folder, *in_layout(stored.config, stored.state, layout, "the drafter", embedding))
    return folder


def forms_for(case: str) -> list[str]:
    """SGLang serves no three modules."""
    return [form for form in FORMS if form != "sglang" or CASES[case] != "prism3"]


def convert(source: Path, form: str, out: Path, capture: tuple[int, ...] = ()) -> Path:
    stored = read_drafter(source, SIZES, capture)
    return write_in(out, stored, layout_for(form, stored.config))


def assert_equal(one: StoredDrafter, other: StoredDrafter) -> None:
    assert one.config == other.config
    assert one.state.keys() == other.state.keys()
    for name, tensor in one.state.items():
        assert tensor.dtype == other.state[name].dtype
        assert torch.equal(tensor, other.state[name])


def written(folder: Path, case: str, drafter: Drafter | None = None) -> Path:
    write(folder, case, drafter or make_drafter(CASES[case], make_target()))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_on_the_way_there_and_on(tmp_path: Path, case: str) -> None:
    """Into every layout, and from there into every layout again; a folder that was written says all by itself."""
    source = written(tmp_path / "source", case)
    original = read_drafter(source, SIZES, CAPTURE)
    for form in forms_for(case):
        there = convert(source, form, tmp_path / form, CAPTURE)
        assert_equal(read_drafter(there, None), original)
        assert read_layout(there) == layout_for(form, original.config).name
        for again in forms_for(case):
            assert_equal(read_drafter(convert(there, again, tmp_path / f"{form} {again}"), SIZES), original)


@pytest.mark.parametrize("case", CASES)
def test_what_it_was_read_from_does_not_show(tmp_path: Path, case: str) -> None:
    """The same bytes as from the project's own layout."""
    own = written(tmp_path / "own", f"own {CASES[case]}")
    source = written(tmp_path / "source", case)
    for form in forms_for(case):
        ours, theirs = (convert(folder, form, tmp_path / f"{folder.name} {form}", CAPTURE) for folder in (own, source))
        for name in ("config.json", "model.safetensors"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def meaning(data: dict[str, Any]) -> dict[str, Any]:
    """What a published config says of a drafter, however it spells the RoPE base and repeats the last module.

    Dtype is the authors' default, not the test's. The base in EAGLE-3's own config is not the trained one.
    """
    said = {key: value for key, value in data.items() if key not in ("torch_dtype", "rope_scaling", NOTE)}
    if "rope_parameters" in said:
        said["rope_theta"] = said.pop("rope_parameters")["rope_theta"]
    if "step_mapping" in said:
        steps = list(said.pop("step_mapping").values())
        assert said.pop("num_steps") == len(steps)
        said["modules of steps"] = (steps + steps[-1:] * 8)[:8]
        said["eagle_config"] = meaning(said["eagle_config"]) | {"bias": False}
    if "draft_vocab_size" in said:
        del said["rope_theta"]
    return said


def assert_as_published(folder: Path, case: str, drafter: Drafter) -> None:
    """The folder has the names, the tensors and what the config means as the case's authors write them."""
    data, expected = WRITERS[case][1](drafter)
    ours, found = json.loads((folder / "config.json").read_text()), read_state(folder)
    aliases = ("layers.", "fc.") if case.startswith("torch") and case != "torch eagle3" else ()
    # SGLang takes the target's embedding and head, whatever is in the folder.
    spare = {"embed_tokens.weight", "lm_head.weight"} if case.startswith("sglang") else set()
    expected = {name: t for name, t in expected.items() if name not in spare and not name.startswith(aliases)}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    theirs, said = meaning(data), meaning(ours)
    for key, value in theirs.items():
        if key == "eagle_config":
            assert value.items() <= said[key].items()
        else:
            assert (key, said[key]) == (key, value)


@pytest.mark.parametrize("case", WRITERS)
def test_what_is_written_is_what_its_authors_write(tmp_path: Path, case: str) -> None:
    kind = CASES[case]
    own = written(tmp_path / "own", f"own {kind}")
    there = convert(own, form_of(case), tmp_path / "there")
    assert_as_published(there, case, make_drafter(kind, make_target()))


def test_eagle3_is_written_as_stock_sglang_loads_it(tmp_path: Path) -> None:
    """The authors' tensors, and a config that names the architecture and the layers whose outputs are captured."""
    drafter = make_drafter("eagle3", make_target())
    there = convert(written(tmp_path / "own", "own eagle3"), "sglang", tmp_path / "there")
    assert read_state(there).keys() == eagle3(drafter)[1].keys()
    data = json.loads((there / "config.json").read_text())
    assert data["architectures"] == ["LlamaForCausalLMEagle3"]
    assert data["eagle_config"] == {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
    assert (data["rope_theta"], data["bias"], data["draft_vocab_size"]) == (10000.0, False, 24)
    assert data["tie_word_embeddings"] is False


# --- Each rule and each fact of a config counts: a wrong one is noticed.


def _broken_rules(layout: Layout) -> list[Layout]:
    """The layout with one wrong rule, once for each; a round trip alone would not notice these."""
    return [
        dataclasses.replace(layout, rules=(*layout.rules[:n], (ours, f"x{theirs}"), *layout.rules[n + 1 :]))
        for n, (ours, theirs) in enumerate(layout.rules)
    ]


def _layout_of(case: str) -> Layout:
    return layout_for(form_of(case), DRAFTERS[CASES[case]])


def test_every_wrong_rule_is_noticed(tmp_path: Path) -> None:
    noticed: dict[str, set[int]] = {}
    for case, (kind, _) in WRITERS.items():
        source = written(tmp_path / case, f"own {kind}")
        drafter, layout = make_drafter(kind, make_target()), _layout_of(case)
        for number, broken in enumerate(_broken_rules(layout)):
            there = write_in(tmp_path / f"{case} {number}", read_drafter(source, SIZES), broken)
            try:
                assert_as_published(there, case, drafter)
            except AssertionError:
                noticed.setdefault(layout.name, set()).add(number)
    # SGLang's LD shares the rules of PRISM, and does not use the last, for the hidden states' projection.
    layouts = {layout.name: layout for layout in map(_layout_of, WRITERS)}
    every = {name: set(range(len(layout.rules))) for name, layout in layouts.items()}
    every[SGLANG_LD.name].remove(2)
    every[SGLANG_EAGLE.name].remove(2)  # of a draft vocabulary: test_draft_vocabulary.py
    assert noticed == every
    # Every other layout that is written has the rules of one of these, or says nothing in other words.
    written_at_all = {layout_for(form, DRAFTERS[kind]).name for form in FORMS for kind in DRAFTERS}
    assert written_at_all - set(every) == {OWN.name, SGLANG_EAGLE3.name}
    assert SGLANG_EAGLE3.rules == EAGLE3.rules


def _layer(data: dict[str, Any]) -> dict[str, Any]:
    return data["eagle_config"] if "num_steps" in data else data


def _other_base(data: dict[str, Any]) -> None:
    _layer(data)["rope_theta"] *= 2


def _other_length(data: dict[str, Any]) -> None:
    _layer(data)["max_position_embeddings"] += 1


def _other_heads(data: dict[str, Any]) -> None:
    _layer(data)["num_attention_heads"] = 2
    _layer(data)["head_dim"] = 8


def _other_states(data: dict[str, Any]) -> None:
    data[NOTE]["capture"] = [1, 2, 4]


@pytest.mark.parametrize("change", [_other_base, _other_length, _other_heads, _other_states])
@pytest.mark.parametrize("form", ["sglang", "huggingface"])
@pytest.mark.parametrize("kind", ["prism_star", "eagle3"])
def test_every_wrong_fact_in_a_config_is_noticed(
    tmp_path: Path, kind: str, form: str, change: Callable[[dict[str, Any]], None]
) -> None:
    original = read_drafter(written(tmp_path / "own", f"own {kind}"), SIZES)
    layout = layout_for(form, original.config)

    def described(config: DrafterConfig, dtype: str) -> dict[str, Any]:
        data = layout.describe(config, dtype)
        change(data)
        return data

    there = write_in(tmp_path / "there", original, dataclasses.replace(layout, describe=described))
    with pytest.raises((AssertionError, CheckpointError)):
        assert_equal(read_drafter(there, None), original)


# --- What a layout has no place for.


@pytest.mark.parametrize("form", ["sglang", "huggingface"])
def test_eagle3_keeps_the_base_it_was_trained_with(tmp_path: Path, form: str) -> None:
    """The authors' config says 500000, which their training does not use; what is written says what counts."""
    source = written(tmp_path / AUTHORS_PLACE, "torch eagle3")
    change_config(source, lambda data: data.update(rope_theta=500000.0))
    there = convert(source, form, tmp_path / "there", CAPTURE)
    assert json.loads((there / "config.json").read_text())["rope_theta"] == 10000.0
    assert read_config(there).layer.rope_theta == 10000.0
    as_evaluated = read_drafter(source, SIZES, CAPTURE, rope_theta=500000.0)
    there = write_in(tmp_path / "evaluated", as_evaluated, layout_for(form, as_evaluated.config))
    assert read_config(there).layer.rope_theta == 500000.0
    assert read_config(there, rope_theta=10000.0).layer.rope_theta == 10000.0


@pytest.mark.parametrize("kind", ["prism_star", "eagle3"])
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_says_its_hidden_states_is_believed(tmp_path: Path, form: str, kind: str) -> None:
    """Both engines always say where the authors' drafters read, which this one need not."""
    target = tmp_path / "target"
    target.mkdir()
    larger = Llama(dataclasses.replace(TARGET, num_hidden_layers=6))
    save_target(target, larger)
    source = written(tmp_path / "source", f"own {kind}")
    there = convert(source, form, tmp_path / "there")
    usual = published_capture(read_layout(there), 6)
    assert usual != CAPTURE
    assert read_config(there, usual) == read_config(source) == DRAFTERS[kind]

    sizes = TargetSizes.from_hf(json.loads((target / "config.json").read_text()), str(target))
    served = ResolvedTarget(str(target), sizes, "float32", 256)
    before, after = ({**json.loads((describe(f, served).folder / "config.json").read_text())} for f in (source, there))
    assert before.pop(KEY)["config"] == after.pop(KEY)["config"]
    assert before == after

    suite = load_suite("mini")
    record = dataclasses.replace(suite.targets["mini-llama-2"], capture=(0, 1, 2), eagle3_capture=(0, 1, 3))
    for engine in ("torch", "sglang"):
        assert make_pair(record, target, there, "draft-head", engine).capture == CAPTURE


@pytest.mark.parametrize(
    ("form", "change", "subject"),
    [
        ("huggingface", lambda data: data[NOTE].update(capture=[]), "capture"),
        ("huggingface", lambda data: data[NOTE].update(capture=["1", "2", "3"]), "capture"),
        ("huggingface", lambda data: data[NOTE].update(capture=3), "prism_ae_drafter"),
        ("huggingface", lambda data: data[NOTE].pop("capture"), "prism_ae_drafter"),
        ("huggingface", lambda data: data.update({NOTE: [1, 2, 3]}), "prism_ae_drafter"),
        ("huggingface", lambda data: data.update({NOTE: None}), "prism_ae_drafter"),
        ("huggingface", lambda data: data[NOTE].update(capture=None), "prism_ae_drafter"),
        ("huggingface", lambda data: data.pop("rope_theta"), "rope_theta"),
        ("sglang", lambda data: data[NOTE].update(capture=[1, 2, 4]), r"layer_ids.*\[0, 1, 2\]"),
        (
            "sglang",
            lambda data: data["eagle_config"].update(eagle_aux_hidden_state_layer_ids=[1, 2]),
            r"layer_ids.*\[1, 2\]",
        ),
        ("sglang", lambda data: data.pop("eagle_config"), "eagle_config"),
    ],
)
def test_a_note_that_cannot_be_is_refused(
    tmp_path: Path, form: str, change: Callable[[dict[str, Any]], object], subject: str
) -> None:
    there = convert(written(tmp_path / "own", "own eagle3"), form, tmp_path / "there")
    change_config(there, change)
    with pytest.raises(CheckpointError, match=f"(?s){there / 'config.json'}.*{subject}"):
        read_drafter(there, SIZES, CAPTURE)


def test_others_folders_of_the_same_architecture_are_read_as_before(tmp_path: Path) -> None:
    """Their config's RoPE base is the trained one."""
    source = written(tmp_path / "source", "torch eagle3")
    change_config(source, lambda data: data.update(architectures=["LlamaForCausalLMEagle3"], rope_theta=700000.0))
    stored = read_drafter(source, SIZES, CAPTURE)
    assert (stored.layout, stored.config.layer.rope_theta) == ("torch-eagle3", 700000.0)


def test_a_base_is_not_guessed_where_no_target_is_known(tmp_path: Path) -> None:
    source = written(tmp_path / "source", "torch prism")
    change_config(source, lambda data: data["eagle_config"].pop("rope_theta"))
    with raises(CheckpointError, "rope_theta"):
        read_drafter(source, None)
    assert read_config(source).layer.rope_theta == 10000.0  # whoever loads it knows the target
    assert read_drafter(source, None, rope_theta=500000.0).config.layer.rope_theta == 500000.0


def test_tied_is_what_sglang_is_never_told(tmp_path: Path) -> None:
    """It would take EAGLE-3's embedding for its head. The target alone knows whether its own are tied."""
    for kind in sorted({*DRAFTERS} - {"prism3"}):
        config = DRAFTERS[kind]
        tied = dataclasses.replace(config, layer=dataclasses.replace(config.layer, tie_word_embeddings=True))
        assert layout_for("sglang", tied).describe(tied, "float32")["tie_word_embeddings"] is False


_STAR, _EAGLE3 = DRAFTERS["prism_star"], DRAFTERS["eagle3"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (dataclasses.replace(_STAR, step_mapping=(1, 0)), r"\[1, 0\]"),
        (dataclasses.replace(_STAR, step_mapping=(0, 0, 1)), r"\[0, 0, 1\]"),
        (dataclasses.replace(_STAR, modules=1, step_mapping=(0,)), "one module"),
        (DRAFTERS["prism3"], "3 modules"),
        (dataclasses.replace(DRAFTERS["prism"], modules=4, step_mapping=(0, 1, 2, 3)), "4 modules"),
        (dataclasses.replace(DRAFTERS["hass2"], modules=2, step_mapping=(0, 1)), "2 layers"),
        (dataclasses.replace(_EAGLE3, aux_hidden_layers=(1, 3, 2)), r"\[1, 3, 2\]"),
        (dataclasses.replace(_EAGLE3, aux_hidden_layers=(1, 1, 2)), r"\[1, 1, 2\]"),
        (dataclasses.replace(_EAGLE3, aux_hidden_layers=(0, 1, 2)), "from 1 on"),
    ],
)
def test_what_sglang_cannot_serve_is_refused_and_the_other_layouts_can_say_it(
    tmp_path: Path, config: DrafterConfig, reason: str
) -> None:
    torch.manual_seed(3)
    source = written(tmp_path / "source", f"own {config.cell}", Drafter(config, make_target()))
    with pytest.raises(UsageError, match=reason) as caught:
        convert(source, "sglang", tmp_path / "sglang")
    assert layout_for("sglang", config).name in caught.value.what
    assert "--to own" in caught.value.hint
    for form in ("huggingface", "own"):
        assert_equal(read_drafter(convert(source, form, tmp_path / form), SIZES), read_drafter(source, SIZES))


def stretched(config: DrafterConfig) -> DrafterConfig:
    return dataclasses.replace(
        config, layer=dataclasses.replace(config.layer, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 32))
    )


@pytest.mark.parametrize(
    ("config", "forms", "reason"),
    [
        (dataclasses.replace(_STAR, aux_hidden_layers=(1, 3)), ("huggingface", "sglang"), " 2 "),
        (dataclasses.replace(_STAR, aux_hidden_layers=(0, 1, 2, 3)), ("huggingface", "sglang"), " 4 "),
        (dataclasses.replace(_EAGLE3, aux_hidden_layers=(1, 3)), ("huggingface",), " 2 "),
        (dataclasses.replace(_EAGLE3, aux_hidden_layers=(2,)), ("huggingface", "sglang"), " 1 "),
        (stretched(DRAFTERS["prism"]), ("huggingface",), "Llama-3.1"),
        (stretched(_EAGLE3), ("huggingface",), "Llama-3.1"),
    ],
)
def test_what_the_authors_code_has_no_place_for_is_refused(
    tmp_path: Path, config: DrafterConfig, forms: tuple[str, ...], reason: str
) -> None:
    """Their code always fuses three states, and knows RoPE's base alone."""
    torch.manual_seed(3)
    source = written(tmp_path / "source", f"own {config.cell}", Drafter(config, make_target()))
    for form in FORMS:
        if form in forms:
            with pytest.raises(UsageError, match=reason):
                convert(source, form, tmp_path / form)
        else:
            assert_equal(read_drafter(convert(source, form, tmp_path / form), SIZES), read_drafter(source, SIZES))


def test_the_last_module_counts_for_all_later_steps_however_often_it_is_named(tmp_path: Path) -> None:
    longer = dataclasses.replace(_STAR, step_mapping=(0, 1, 1, 1))
    source = written(tmp_path / "source", "own prism_star", Drafter(longer, make_target()))
    for form in ("sglang", "huggingface"):
        assert read_config(convert(source, form, tmp_path / form)) == _STAR


def test_a_draft_vocabulary_in_another_order_is_refused(tmp_path: Path) -> None:
    drafter = make_drafter("eagle3", make_target())
    drafter.draft_ids = drafter.draft_ids.flip(0)
    source = written(tmp_path / "source", "own eagle3", drafter)
    for form in ("sglang", "huggingface"):
        with raises(UsageError, layout_for(form, DRAFTERS["eagle3"]).name):
            convert(source, form, tmp_path / form)
    assert_equal(read_drafter(convert(source, "own", tmp_path / "own"), SIZES), read_drafter(source, SIZES))


# --- What a folder leaves out is written out.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architectures", [["LlamaForCausalLMEagle"], ["LlamaForCausalLM"], None])
def test_a_fusion_layer_without_bias_gets_one_of_zeros(tmp_path: Path, form: str, architectures: Any) -> None:
    """The readers add one whatever the folder has: random where it is missing."""
    source = written(tmp_path / "source", "sglang eagle2")
    change_config(source, lambda data: data.update(architectures=architectures, bias=False))
    state = read_state(source)
    del state["fc.bias"]
    write_state(source, state)
    there = convert(source, form, tmp_path / "there")
    biases = [tensor for name, tensor in read_state(there).items() if name.endswith("bias")]
    assert [tensor.tolist() for tensor in biases] == [[0.0] * TARGET.hidden_size]
    assert "bias" not in json.loads((there / "config.json").read_text())
    assert_equal(read_drafter(there, SIZES), read_drafter(source, SIZES))


@pytest.mark.parametrize("form", ["sglang", "huggingface"])
@pytest.mark.parametrize("said", [None, TARGET.vocab_size])
def test_an_eagle3_over_the_whole_vocabulary_gets_its_tables(tmp_path: Path, form: str, said: int | None) -> None:
    config = dataclasses.replace(_EAGLE3, draft_vocab_size=TARGET.vocab_size)
    source = written(tmp_path / "source", "torch eagle3", Drafter(config, make_target()))
    change_config(source, lambda data: data.update(draft_vocab_size=said))
    write_state(source, {name: tensor for name, tensor in read_state(source).items() if name not in ("d2t", "t2d")})
    there = convert(source, form, tmp_path / "there", CAPTURE)
    state = read_state(there)
    assert state["d2t"].tolist() == [0] * TARGET.vocab_size
    assert state["t2d"].all()
    assert json.loads((there / "config.json").read_text())["draft_vocab_size"] == TARGET.vocab_size
    assert_equal(read_drafter(there, SIZES), read_drafter(source, SIZES, CAPTURE))


# --- Tensors.


@pytest.mark.parametrize("form", ["pickled", "shards", "pickled shards"])
@pytest.mark.parametrize("case", ["torch prism_star", "torch eagle3"])
def test_weights_are_read_from_files_of_every_form(tmp_path: Path, case: str, form: str) -> None:
    source = written(tmp_path / "source", case)
    there = convert(source, "own", tmp_path / "there", CAPTURE)
    repack(source, form)
    again = convert(source, "own", tmp_path / "again", CAPTURE)
    assert (there / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_tensors_that_share_memory_become_two(tmp_path: Path) -> None:
    """As in a pickled file whose modules are one and the same, or parts of a larger tensor."""
    source = written(tmp_path / "source", "torch prism")
    state = read_state(source)
    (source / "model.safetensors").unlink()
    pair = torch.stack([state["stepFCs.0.weight"].T, state["stepFCs.0.weight"].T])
    state |= {"stepFCs.0.weight": pair[0].T, "stepFCs.1.weight": pair[0].T, "fc.weight": pair[1].T}
    torch.save(state, source / "pytorch_model.bin")
    assert_equal(read_drafter(convert(source, "sglang", tmp_path / "there"), SIZES), read_drafter(source, SIZES))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_stays_and_the_config_says_it(tmp_path: Path, dtype: torch.dtype, form: str) -> None:
    source = written(tmp_path / "source", "own eagle3")
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in read_state(source).items()}
    write_state(source, state)
    there = convert(source, form, tmp_path / "there")
    assert_equal(read_drafter(there, SIZES), read_drafter(source, SIZES))
    said = json.loads((there / "config.json").read_text()).get("torch_dtype")
    assert said == (None if form == "own" else str(dtype).removeprefix("torch."))


def test_a_config_names_the_dtype_that_rounds_nothing() -> None:
    config = DRAFTERS["eagle2"]
    for dtypes, said in (((torch.float16, torch.float32), "float32"), ((torch.float16, torch.bfloat16), "float32")):
        state = {
            f"modules.0.fusion.{n}": torch.ones(1, dtype=d) for n, d in zip(("weight", "bias"), dtypes, strict=True)
        }
        data, tensors = in_layout(config, state, LARGE_DRAFTER, "", torch.ones(40, 16))
        assert data["eagle_config"]["torch_dtype"] == said
        assert tensors["embed_tokens.weight"].dtype == getattr(torch, said)


def test_weights_in_another_dtype_are_the_nearest_and_ids_stay() -> None:
    state = {"weight": torch.tensor([1 / 3, -65504.0, float("inf")]), "draft_ids": torch.tensor([2**40])}
    found = cast(state, torch.float16, "here")
    assert torch.equal(found["weight"], torch.tensor([0.333251953125, -65504.0, float("inf")], dtype=torch.float16))
    assert torch.equal(found["draft_ids"], state["draft_ids"])
    with raises(CheckpointError, "here", "'weight'", "float16"):
        cast({"weight": torch.tensor([1.0, -1e6])}, torch.float16, "here")


def test_there_is_no_other_form() -> None:
    with pytest.raises(KeyError):
        layout_for("vllm", DRAFTERS["prism"])
    assert layout_for("sglang", DRAFTERS["eagle3"]) is SGLANG_EAGLE3
