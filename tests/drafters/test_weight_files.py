"""The same tensors are read from one file or from shards, from safetensors or pickled; and nothing else is."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import CAPTURE, TARGET, make_drafter, make_target, read_state, repack, write, write_state
from raising import raises
from safetensors.torch import save_file

from prism_ae.drafters.layouts.read import read_config, read_drafter, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.hub.selection import needed
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.locate import _weights
from prism_ae.models.weights import FORMATS, find_format, open_weights, read_weights

CPU = torch.device("cpu")
SIZES = TargetSizes.of(TARGET)
FORMS = ("pickled", "shards", "pickled shards")
INDEX = "model.safetensors.index.json"


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("form", FORMS)
def test_a_drafter_is_read_from_files_of_every_form_and_none_is_written(tmp_path: Path, form: str) -> None:
    write(tmp_path, "torch eagle3", make_drafter("eagle3", make_target()))
    original = read_drafter(tmp_path, SIZES, CAPTURE)
    repack(tmp_path, form)
    before = content(tmp_path)
    again = read_drafter(tmp_path, SIZES, CAPTURE)
    assert (again.config, again.layout, again.ignored) == (original.config, original.layout, original.ignored)
    assert again.state.keys() == original.state.keys()
    for name, tensor in again.state.items():
        assert torch.equal(tensor, original.state[name])
        tensor.add_(1)  # whoever changes what was read does not change the file
    assert (read_config(tmp_path, CAPTURE), read_layout(tmp_path)) == (original.config, original.layout)
    assert content(tmp_path) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_a_target_is_read_from_files_of_every_form(tmp_path: Path, form: str, dtype: torch.dtype) -> None:
    target = make_target()
    save_target(tmp_path, target)
    write_state(tmp_path, {name: tensor.to(dtype) for name, tensor in read_state(tmp_path).items()})
    repack(tmp_path, form)
    loaded = load_target(tmp_path, torch.float32, CPU)
    assert loaded.state_dict().keys() == target.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name].to(dtype).float())


@pytest.mark.parametrize("form", [None, "pickled"])
def test_a_dtype_that_is_not_read_is_named(tmp_path: Path, form: str | None) -> None:
    save_target(tmp_path, make_target())
    state = read_state(tmp_path)
    state["model.norm.weight"] = state["model.norm.weight"].double()
    write_state(tmp_path, state)
    if form:
        repack(tmp_path, form)
    with raises(CheckpointError, "'model.norm.weight'", "float64", "float16, bfloat16, float32"):
        load_target(tmp_path, torch.float32, CPU)


class _Hostile:
    """Pickles as a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.marker), "w")


def _plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def _old_torch(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, _old_torch, _plain_pickle])
@pytest.mark.parametrize("shard", [False, True])
def test_a_pickle_that_would_run_code_is_not_run(
    tmp_path: Path, save: Callable[[object, Path], None], shard: bool
) -> None:
    write(tmp_path, "torch prism", make_drafter("prism", make_target()))
    repack(tmp_path, "pickled shards" if shard else "pickled")
    file = tmp_path / ("pytorch_model-00002-of-00003.bin" if shard else "pytorch_model.bin")
    marker = tmp_path / "marker"
    save({"stepFCs.0.weight": torch.zeros(1), "evil": _Hostile(marker)}, file)
    for read in (read_layout, lambda folder: read_drafter(folder, SIZES), open_weights):
        with raises(CheckpointError, file):
            read(tmp_path)
        assert not marker.exists()


def test_the_hostile_pickle_is_one(tmp_path: Path) -> None:
    """Without the restricted loader it runs: the test above would notice."""
    torch.save({"evil": _Hostile(tmp_path / "marker")}, tmp_path / "file.bin")
    torch.load(tmp_path / "file.bin", weights_only=False)["evil"].close()
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"weight": torch.zeros(2), "epoch": 3},
        {"weight": {"nested": torch.zeros(2)}},
        [torch.zeros(2)],
        {3: torch.zeros(2)},
        {"weight": torch.zeros(2).to_sparse()},
        {"weight": torch.zeros(2, device="meta")},
    ],
)
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with raises(CheckpointError, tmp_path / "pytorch_model.bin"):
        open_weights(tmp_path)


def test_parameters_are_tensors(tmp_path: Path) -> None:
    torch.save(dict(torch.nn.Linear(2, 3).named_parameters()), tmp_path / "pytorch_model.bin")
    tensors = read_weights(tmp_path)
    assert tensors.keys() == {"weight", "bias"}
    assert not any(tensor.requires_grad for tensor in tensors.values())


@pytest.mark.parametrize("save", [torch.save, _old_torch])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pickle_is_an_error_with_its_name(
    tmp_path: Path, save: Callable[[object, Path], None], share: float
) -> None:
    write(tmp_path, "torch prism", make_drafter("prism", make_target()))
    file = tmp_path / "pytorch_model.bin"
    save(read_state(tmp_path), file)
    (tmp_path / "model.safetensors").unlink()
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with raises(CheckpointError, file):
        read_drafter(tmp_path, SIZES)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99])
@pytest.mark.parametrize("form", [None, "shards"])
def test_a_truncated_safetensors_file_is_an_error_with_its_name(tmp_path: Path, form: str | None, share: float) -> None:
    write(tmp_path, "torch prism", make_drafter("prism", make_target()))
    if form:
        repack(tmp_path, form)
    file = tmp_path / ("model-00003-of-00003.safetensors" if form else "model.safetensors")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    for read in (read_layout, lambda folder: read_drafter(folder, SIZES)):
        with raises(CheckpointError, file):
            read(tmp_path)


def test_an_archive_whose_content_is_gone_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/nothing", "")
    with raises(CheckpointError, tmp_path / "pytorch_model.bin"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "shard",
    ["../outside/model-00001-of-00001.safetensors", "/etc/passwd", "sub/model-00001-of-00001.safetensors", "..", 7,
     "model-00001-of-00001.bin", "other.safetensors", "model-00001-of-00001.safetensors/..", None],
)  # fmt: skip
def test_a_shard_outside_the_folder_is_not_read(tmp_path: Path, shard: object) -> None:
    for place in ("outside", "inside", "inside/sub"):
        (tmp_path / place).mkdir()
        save_file({"x": torch.zeros(1)}, tmp_path / place / "model-00001-of-00001.safetensors")
    (tmp_path / "inside" / INDEX).write_text(json.dumps({"weight_map": {"x": shard}}))
    with raises(CheckpointError, tmp_path / "inside" / INDEX, "'x'", shard):
        open_weights(tmp_path / "inside")


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (lambda listed: listed.pop("b"), r"00002-of-00002.safetensors.*'b'"),
        (lambda listed: listed.update(c=listed["b"]), r"00002-of-00002.safetensors.*'c'"),
        (lambda listed: listed.update(a=listed["b"]), r"00001-of-00002.safetensors.*'a'.*00002"),
        (lambda listed: listed.clear(), "weight_map"),
    ],
)
def test_shards_hold_what_the_index_says(
    tmp_path: Path, change: Callable[[dict[str, str]], object], subject: str
) -> None:
    listed = {name: f"model-{number:05d}-of-00002.safetensors" for number, name in enumerate("ab", start=1)}
    for name, shard in listed.items():
        save_file({name: torch.zeros(1), f"{name}2": torch.ones(1)}, tmp_path / shard)
    listed |= {f"{name}2": shard for name, shard in listed.items()}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": listed}))
    assert set(read_weights(tmp_path)) == {"a", "b", "a2", "b2"}
    change(listed)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(CheckpointError, match=subject):
        open_weights(tmp_path)


def test_a_tensor_in_two_shards_and_a_missing_shard_are_refused(tmp_path: Path) -> None:
    shards = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file({"a": torch.zeros(1)}, shards[0])
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shards[0].name, "b": shards[1].name}}))
    with raises(MissingError, shards[1]):
        open_weights(tmp_path)
    save_file({"a": torch.ones(1), "b": torch.zeros(1)}, shards[1])
    with raises(CheckpointError, "'a'", shards[0].name):
        open_weights(tmp_path)


def test_a_shard_that_no_index_lists_is_noticed(tmp_path: Path) -> None:
    """What a folder is identified by are all its shards."""
    torch.save({"pickled": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    shard = tmp_path / "model-00001-of-00001.safetensors"
    save_file({"a": torch.zeros(1)}, shard)
    with pytest.raises(MissingError, match=INDEX):
        open_weights(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shard.name}}))
    open_weights(tmp_path)
    save_file({"b": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    with raises(CheckpointError, "00001-of-00002.safetensors", INDEX):
        open_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=INDEX):
        open_weights(tmp_path)


def test_safetensors_are_preferred_to_pickles_and_one_file_to_shards(tmp_path: Path) -> None:
    with raises(MissingError, tmp_path / "model.safetensors"):
        open_weights(tmp_path)
    torch.save({"pickled": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert set(read_weights(tmp_path)) == {"pickled"}
    shard = tmp_path / "model-00001-of-00001.safetensors"
    save_file({"shard": torch.zeros(1)}, shard)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"shard": shard.name}}))
    assert set(read_weights(tmp_path)) == {"shard"}
    save_file({"one": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert set(read_weights(tmp_path)) == {"one"}


def test_names_of_a_safetensors_file_need_no_torch(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    code = (
        "import sys; from pathlib import Path; from prism_ae.models.weights import open_weights;"
        "print(list(open_weights(Path(sys.argv[1])).files), 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True) == "['a'] False\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("safetensors.safe_open", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    with raises(StoreError, tmp_path / name, "Permission denied"):
        open_weights(tmp_path)


WHOLE, SHARD, INDEX = "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"
PICKLED_SHARD = "pytorch_model-00002-of-00002.bin"


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        ([WHOLE, "pytorch_model.bin"], WHOLE),
        ([SHARD, "pytorch_model.bin"], WHOLE),
        ([INDEX, PICKLED_SHARD], WHOLE),
        ([PICKLED_SHARD, "config.json"], "pytorch_model.bin"),
        (["adapter_model.safetensors", "consolidated.00.pth", "model-1-of-x.safetensors", "training_args.bin"], None),
    ],
)
def test_one_rule_says_which_files_are_weights(names: list[str], whole: str | None, tmp_path: Path) -> None:
    """What is downloaded, what identifies a folder and what is read of it are of the same format."""
    found = find_format(names)
    assert (found.whole if found else None) == whole
    for name in names:
        (tmp_path / name).write_bytes(b"")
    fetched = set(needed(names, "")) - {"config.json"}
    assert fetched == {name for name in names if found and (found.has(name) or name == found.index)}
    identified = _weights(tmp_path)
    assert all(find_format([name]) == (found or FORMATS[0]) for name in identified)
    assert {name for name in fetched if name != INDEX} <= set(identified) or WHOLE in identified
    if found is None:
        with pytest.raises(MissingError, match="does not exist"):
            open_weights(tmp_path)
