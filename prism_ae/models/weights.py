"""Reading and writing the tensors of a checkpoint folder: one file or shards, safetensors or pickled.

Folders from a hub are hostile. Pickled weights are read by torch's restricted loader, which builds tensors and runs
nothing; what it refuses is not loaded. The shards that an index names lie beside it. Nothing is ever written to a
folder that is read.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.models.config_keys import UNQUANTISED
from prism_ae.models.file_kinds import refuse_other_kinds

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "correct the file if it was changed by hand; else make or fetch the folder again"

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"

TOKEN_MAP = "token_map.pt"
"""Of a drafter in SGLang's layout of EAGLE-2: the tokens that it drafts among (`drafters.layouts.token_map`)."""


@dataclasses.dataclass(frozen=True)
class WeightFormat:
    """Names of weights in a folder: ``whole``, or shards ``<stem>-<number>-of-<total>.<suffix>`` and their index."""

    whole: str

    @property
    def index(self) -> str:
        return f"{self.whole}.index.json"

    @property
    def shard(self) -> re.Pattern[str]:
        """A shard's name; its group "total" says how many there are."""
        stem, _, suffix = self.whole.rpartition(".")
        return re.compile(rf"{re.escape(stem)}-[0-9]+-of-(?P<total>[0-9]+)\.{suffix}")

    def shard_name(self, number: int, total: str) -> str:
        stem, _, suffix = self.whole.rpartition(".")
        return f"{stem}-{number:0{len(total)}d}-of-{total}.{suffix}"

    def has(self, name: str) -> bool:
        """Whether a file of this name holds weights in this format."""
        return name == self.whole or self.shard.fullmatch(name) is not None


FORMATS = (WeightFormat(WEIGHTS), WeightFormat(PICKLED))
"""The first of which a folder has any file is the one that is read."""


def find_format(names: Iterable[str]) -> WeightFormat | None:
    """The format that is read of a folder with files of these names; None where it has no weights."""
    listed = list(names)
    return next((one for one in FORMATS if any(one.has(name) or name == one.index for name in listed)), None)


def files_in(folder: Path) -> set[str]:
    """Names of what a folder holds; none where there is no folder."""
    return {path.name for path in folder.glob("*") if path.exists()}


FLOATS = ("float16", "bfloat16", "float32")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a folder, opened: every tensor's name is known.

    Attributes:
        source: the file, or the index of the shards: what a message about a missing tensor names.
        files: tensor name -> the file that holds it.
        loaded: the tensors, where a file tells no names without them (pickled ones); else None.
    """

    source: Path
    files: Mapping[str, Path]
    loaded: Mapping[str, Tensor] | None = None

    def where(self, name: str) -> str:
        """The file that holds tensor ``name``, or should: for messages."""
        return str(self.files.get(name, self.source))

    def read(self) -> dict[str, Tensor]:
        """All tensors, on the CPU, in the dtype they are stored in; raises CheckpointError."""
        if self.loaded is not None:
            return dict(self.loaded)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = {}
        for path in dict.fromkeys(self.files.values()):
            try:
                tensors |= load_file(path)
            except SafetensorError as error:
                raise CheckpointError(f"{path} is damaged: {error}", AGAIN) from error
            except OSError as error:
                raise _unreadable(path, error) from error
        return tensors

    def read_one(self, name: str) -> Tensor:
        """One tensor, as `read` has it: the others of its file are not read. Raises KeyError, CheckpointError."""
        if self.loaded is not None:
            return self.loaded[name]
        from safetensors import SafetensorError, safe_open

        path = self.files[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}", AGAIN) from error
        except OSError as error:
            raise _unreadable(path, error) from error


def open_weights(folder: Path) -> Weights:
    """The weights of a folder: safetensors before pickled ones, one file before shards.

    Imports torch only for pickled weights.

    Raises:
        MissingError: there are none, or a shard is missing.
        CheckpointError: a file is damaged, holds more than tensors, or is not what the index says.
        StoreError: a file cannot be read.
    """
    names = files_in(folder)
    found = find_format(names)
    if found is None:
        raise MissingError(
            f"{folder / WEIGHTS} does not exist",
            f"weights are read from {WEIGHTS} or {PICKLED}, or from the shards that <name>.index.json lists",
        )
    source, index = folder / found.whole, folder / found.index
    if found.whole in names:
        return _opened(source, [source])
    if found.index not in names:
        raise MissingError(f"{index} does not exist", "it lists the shards beside it: fetch the model again")
    listed = _listed(index, found)
    if stray := sorted(set(filter(found.has, names)) - set(listed.values())):
        raise CheckpointError(f"{folder / stray[0]} is a shard that {index.name} does not list", AGAIN)
    weights = _opened(index, [folder / shard for shard in sorted(set(listed.values()))])
    _check_index(listed, weights)
    return weights


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder; errors as `open_weights`."""
    return open_weights(folder).read()


def write_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors`` into an existing folder; raises StoreError, as for a full disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(state), folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # what the library makes of an OSError
        raise StoreError(f"cannot write {folder / WEIGHTS}: {error}", "free some space, then run again") from error


_QUANTISED = re.compile(
    r"(.*\.)?(qweight|qzeros|g_idx|scales|weight_scale(_inv|_2)?|weight_(packed|shape|zero_point)|input_scale|SCB"
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*))"
)
"""Names of tensors that methods of quantisation store beside or instead of a weight."""

_SMALL = ("int4", "uint4", "int8", "uint8", "float4", "float8")
"""Beginnings of dtypes that nobody stores weights in otherwise."""


def refuse_quantised(weights: Weights) -> None:
    """Raises CheckpointError for weights that are quantised, by the names of their tensors."""
    for name in weights.files:
        if _QUANTISED.fullmatch(name):
            raise CheckpointError(f"{weights.where(name)}: the weights are quantised ('{name}')", UNQUANTISED)


def require_floats(tensors: Mapping[str, Tensor], names: Iterable[str], weights: Weights) -> None:
    """Raises CheckpointError for a tensor among ``names`` that is not float16, bfloat16 or float32."""
    for name in names:
        if (dtype := str(tensors[name].dtype).removeprefix("torch.")) not in FLOATS:
            where = weights.where(name)
            if dtype.startswith(_SMALL):
                raise CheckpointError(f"{where}: the weights are quantised ('{name}' is {dtype})", UNQUANTISED)
            raise CheckpointError(f"{where}: '{name}' is {dtype}, expected {', '.join(FLOATS)}")


def _opened(source: Path, paths: list[Path]) -> Weights:
    files: dict[str, Path] = {}
    loaded: dict[str, Tensor] | None = {} if paths[0].suffix == ".bin" else None
    for path in paths:
        if not path.exists():
            raise MissingError(f"{path} does not exist", f"{source.name} lists it: fetch the model again")
        refuse_other_kinds(path)
        if loaded is None:
            names: Iterable[str] = _header_names(path)
        else:
            names = tensors = _load_pickled(path)
            loaded |= tensors
        for name in names:
            if name in files:
                raise CheckpointError(f"{path}: tensor '{name}' is also in {files[name].name}", AGAIN)
            files[name] = path
    return Weights(source, files, loaded)


def _header_names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        # "np": names need no torch.
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}", AGAIN) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be read: {error.strerror or error}", "let this user read it, then run again")


def _load_pickled(path: Path) -> dict[str, Tensor]:
    import torch

    more = CheckpointError(
        f"{path} holds more than tensors; not loaded", "convert it to safetensors where you trust it"
    )
    try:
        # Mapped (where it is an archive, as since torch 1.6): pages are read when they are used, names cost nothing.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles: they are read or refused
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise more from error
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # a damaged archive surfaces as whatever the place of the damage raises
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path} is damaged: {reason or type(error).__name__}", AGAIN) from error
    if not isinstance(state, dict):
        raise more
    for name, tensor in state.items():
        plain = isinstance(name, str) and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if not plain or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise more
    return {name: tensor.detach() for name, tensor in state.items()}


def _listed(index: Path, found: WeightFormat) -> dict[str, str]:
    """Tensor name -> shard, as the index says; a shard is named by the pattern and so lies beside the index."""
    try:
        data: Any = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        refuse_other_kinds(index)
        raise CheckpointError(f"{index} cannot be read as JSON: {error}", AGAIN) from error
    listed = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{index} has no weight_map", AGAIN)
    for tensor, shard in listed.items():
        if not isinstance(shard, str) or not found.shard.fullmatch(shard):
            raise CheckpointError(
                f"{index}: tensor '{tensor}' lies in {shard!r}, which is no shard of this folder",
                f"shards are named {found.whole.replace('.', '-<number>-of-<total>.')}",
            )
    return listed


def _check_index(listed: Mapping[str, str], weights: Weights) -> None:
    """The shards hold what the index says, each where it says."""
    for name, shard in listed.items():
        if name not in weights.files:
            raise CheckpointError(f"{weights.source.parent / shard}: tensor '{name}' is missing", AGAIN)
        if weights.files[name].name != shard:
            raise CheckpointError(f"{weights.files[name]}: tensor '{name}' belongs into {shard}", AGAIN)
    for name, path in weights.files.items():
        if name not in listed:
            raise CheckpointError(f"{path}: tensor '{name}' is unexpected: {weights.source.name} does not list it")
