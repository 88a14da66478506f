"""Reading and writing checkpoint folders, strict about every tensor.

A folder that this project wrote holds ``config.json``, ``model.safetensors`` and ``checkpoint.json`` (what it is, the
recipe it came from, and the sha256 of its files; see `Manifest`). It is published whole: written beside its place and
renamed, so a folder that exists is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.io.atomic import publish_folder
from prism_ae.io.digests import digest, file_digest
from prism_ae.io.paths import why_not
from prism_ae.models.config import EMBEDDING, HEAD, LlamaConfig
from prism_ae.models.file_kinds import refuse_other_kinds
from prism_ae.models.weights import AGAIN, WEIGHTS, open_weights, refuse_quantised, require_floats, write_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prism_ae.models.llama import Llama
    from prism_ae.models.weights import Weights

MANIFEST = "checkpoint.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a published folder says about itself.

    Attributes:
        kind: "tokenizer", "target" or "drafter".
        name: record name of the suite; scale: training scale, None for targets and tokenizers.
        recipe: everything that determined the content, as data.
        files: file name -> sha256 (hex).
        provenance: how it came about (seconds, versions, losses): not part of its identity.
    """

    kind: str
    name: str
    scale: str | None
    recipe: Mapping[str, Any]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of the files' sums: the same content, the same fingerprint, wherever it came from."""
        return digest(self.files)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises MissingError or CheckpointError."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist", "a model's folder has it: fetch or make the model again") from None
    except (OSError, ValueError, RecursionError) as error:
        refuse_other_kinds(path)
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", AGAIN) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object", AGAIN)
    return data


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a published folder, or None where there is none; CheckpointError if it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        data = read_json(path)
        if missing := [field.name for field in dataclasses.fields(Manifest) if field.name not in data]:
            raise ValueError(f"'{missing[0]}' is missing")
        manifest = Manifest(**data)
        _check_manifest(manifest)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint manifest: {error}", AGAIN) from error
    return manifest


_PLAIN_NAME = re.compile(r"(?!\.{1,2}$)[^/\x00-\x1f\ud800-\udfff]+")
_SUM = re.compile(r"[0-9a-f]{64}")


def _check_manifest(manifest: Manifest) -> None:
    """Raises ValueError for what `publish` does not write: a hub's folder has anybody's, whose names lead anywhere."""
    for key, kind in (("kind", str), ("name", str), ("recipe", dict), ("files", dict), ("provenance", dict)):
        if not isinstance(getattr(manifest, key), kind):
            raise ValueError(f"'{key}' must be {'a text' if kind is str else 'an object'}")
    if not isinstance(manifest.scale, str | None):
        raise ValueError("'scale' must be a text or null")
    for name, known in manifest.files.items():
        if not _PLAIN_NAME.fullmatch(name) or not isinstance(known, str) or not _SUM.fullmatch(known):
            raise ValueError(f"'files' must name files of the folder, each with its sha256, got {name[:80]!r}")


def check_published(folder: Path) -> None:
    """Raises CheckpointError if a file of a published folder is not the one that its manifest names.

    The manifest identifies every number that is measured with the folder. A folder without one is not judged.
    """
    manifest = read_manifest(folder)
    for name, known in (manifest.files if manifest else {}).items():
        path = folder / name
        try:
            found = file_digest(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}", AGAIN) from error
        if found != known:
            raise CheckpointError(f"{path} is not what was published: its checksum is not {MANIFEST}'s", AGAIN)


def check_place(folder: Path, size: int = 0) -> None:
    """Raises StoreError where `publish` could not make this folder: asked before the work, not after it.

    Args:
        size: bytes that it will hold.
    """
    with _place_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        free = shutil.disk_usage(folder.parent).free
    if free < size + _SPARE:
        raise StoreError(
            f"{folder.parent} has {free / 1e6:,.1f} MB free, {(size + _SPARE) / 1e6:,.1f} MB are needed",
            "free some space, or choose another place",
        )


_SPARE = 1 << 18
"""Bytes for what lies beside weights."""


@contextlib.contextmanager
def _place_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "choose another place, or free some space"
        raise StoreError(f"cannot write to {place}: {why_not(error, place)}", hint) from error


def publish(folder: Path, about: Manifest, write: Callable[[Path], None]) -> Manifest:
    """Fill a folder and make it appear at once.

    Args:
        folder: where it will be; an existing one is kept, and its manifest returned.
        about: its manifest, yet without its files.
        write: fills the temporary folder that it is given.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """
    with _place_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(temporary)
        files = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        manifest = dataclasses.replace(about, files=files)
        (temporary / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=1) + "\n")
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors' library lets nobody else read what it writes
        temporary.chmod(0o755)
        try:
            publish_folder(temporary, folder)
        except OSError:
            existing = read_manifest(folder)
            if existing is None:
                raise
            return existing
        return manifest
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {why_not(error, folder)}", "free some space, then run again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_target(folder: Path, target: Llama, extra: Mapping[str, Any] | None = None) -> None:
    """Write ``config.json`` and weights as transformers and SGLang read them; ``extra`` goes into the config."""
    from prism_ae.models.llama import published_state, target_names

    config = target.config.to_hf() | dict(extra or {})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_weights(folder, published_state(target, target_names(target.config), target.config))


def read_target_config(folder: Path) -> LlamaConfig:
    """The sizes of a Llama-style target; raises MissingError or CheckpointError. Imports no torch."""
    file = folder / "config.json"
    try:
        return LlamaConfig.from_hf(read_json(file), str(file))
    except KeyError as error:
        raise CheckpointError(f"{file}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def load_target(folder: Path, dtype: torch.dtype, device: torch.device) -> Llama:
    """A Llama-style target, frozen, in evaluation mode; raises MissingError or CheckpointError."""
    from prism_ae.models.llama import Llama, load_strictly, target_names, unfilled

    check_published(folder)
    config = read_target_config(folder)
    weights = open_weights(folder)
    _check_alone(folder, weights)
    refuse_quantised(weights)
    check_head(weights, tied=config.tie_word_embeddings)
    state = weights.read()
    require_floats(state, state, weights)
    if config.tie_word_embeddings:
        state.pop(HEAD, None)
    _check_extent(config, state, weights)
    _drop_rotary_tables(state, config, weights)
    target = unfilled(lambda: Llama(config), dtype, device)
    load_strictly(target, state, target_names(config), config, str(weights.source))
    return target.eval().requires_grad_(requires_grad=False)


def check_target_weights(folder: Path) -> None:
    """What of a target's folder decides what every engine reads; of a Llama, also whether its head is what it says.

    Raises:
        PrismError: config.json or weights are missing, damaged, or contradict each other, or there are more weights
            than those that are read.
    """
    weights = open_weights(folder)
    _check_alone(folder, weights)
    config = read_json(folder / "config.json")
    if (config.get("architectures") or [_LLAMA]) == [_LLAMA]:
        check_head(weights, tied=bool(config.get("tie_word_embeddings")))


_LLAMA = "LlamaForCausalLM"


def _check_alone(folder: Path, weights: Weights) -> None:
    """Raises CheckpointError for a target's folder that holds more weights than those that are read.

    SGLang loads every weight file of the better format that lies there, the last one counting, or goes by the index
    alone: a copy, an adapter or shards beside a whole file would be other weights than `open_weights` reads and sums.
    """
    read = {path.name for path in weights.files.values()}
    more = {path.name for path in folder.glob("*.safetensors")} - read
    if any(name.endswith(".bin") for name in read):
        more |= {path.name for path in folder.glob("*.bin")} - read - _NO_WEIGHTS
    elif (index := folder / f"{WEIGHTS}.index.json").exists() and weights.source != index:
        more.add(index.name)
    if more:
        raise CheckpointError(
            f"{folder}: {sorted(more)[0]} lies beside the weights that are read, {sorted(read)[0]}"
            + (f", and {len(more) - 1} more" if len(more) > 1 else ""),
            "engines would read different weights: keep in the folder what belongs to one model",
        )


_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "scheduler.bin"}
"""What trainers leave beside pickled weights."""


def check_head(weights: Weights, *, tied: bool) -> None:
    """Whether the head is what config.json says: of all weights, embedding and head alone are read, and where needed.

    Engines differ where the two disagree: one takes the embedding for the head, another the head that is stored.

    Args:
        weights: of a Llama target.
        tied: its ``tie_word_embeddings``.

    Raises:
        CheckpointError: tied, and a head is stored that is not the embedding; or not tied, and there is no head.
    """
    stored = HEAD in weights.files
    if not tied and not any(name.startswith("lm_head.") for name in weights.files):
        raise CheckpointError(
            f"{weights.source}: tensor '{HEAD}' is missing, and config.json does not say that it is the embedding",
            "fetch the model again; or write tie_word_embeddings: true where the model's authors mean that",
        )
    if not tied or not stored or EMBEDDING not in weights.files:
        return
    import torch

    embedding, head = (weights.read_one(name) for name in (EMBEDDING, HEAD))
    if embedding.dtype != head.dtype:
        embedding, head = embedding.float(), head.float()
    if not torch.equal(embedding, head):
        raise CheckpointError(
            f"{weights.where(HEAD)}: '{HEAD}' is not the embedding, and config.json says that it is "
            "(tie_word_embeddings)",
            "write tie_word_embeddings: false if the stored head is meant, or leave it out of the weights",
        )


def _check_extent(config: LlamaConfig, state: Mapping[str, Tensor], weights: Weights) -> None:
    """Sizes that memory is taken for are compared with tensors before it is: config.json may say any."""
    if config.num_hidden_layers > len(state):
        raise CheckpointError(
            f"{weights.source}: config.json says num_hidden_layers {config.num_hidden_layers}, of {len(state)} tensors",
            AGAIN,
        )
    expected = {EMBEDDING: (config.vocab_size, config.hidden_size)} | {
        f"model.layers.{layer}.mlp.gate_proj.weight": (config.intermediate_size, config.hidden_size)
        for layer in range(config.num_hidden_layers)
    }
    for name, shape in expected.items():
        if name not in state:
            raise CheckpointError(f"{weights.source}: tensor '{name}' is missing", AGAIN)
        if tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"{weights.where(name)}: '{name}' has shape {list(state[name].shape)}, expected {list(shape)}"
            )


_ROTARY_TABLE = ".self_attn.rotary_emb.inv_freq"


def _drop_rotary_tables(state: dict[str, Tensor], config: LlamaConfig, weights: Weights) -> None:
    """Old Llama checkpoints (Llama-2's own among them) store the rotary frequencies, which the config determines."""
    import torch

    from prism_ae.models.llama import rotary_frequencies

    expected = rotary_frequencies(config)
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}{_ROTARY_TABLE}"
        table = state.pop(name, None)
        # The tolerance is bfloat16's, which such a table may have been rounded to.
        if table is not None and not (
            table.shape == expected.shape and torch.allclose(table.float(), expected, rtol=2**-7, atol=1e-7)
        ):
            said = f"rope_theta {config.rope_theta}" + (" and rope_scaling" if config.rope_scaling else "")
            raise CheckpointError(f"{weights.where(name)}: '{name}' is not what {said} gives")
