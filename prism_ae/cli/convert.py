"""``prism-ae convert``: a drafter's folder, written again in another layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism_ae.cli.options import check_word

if TYPE_CHECKING:
    from prism_ae.drafters.config import DrafterConfig
    from prism_ae.drafters.layouts.records import TargetSizes
    from prism_ae.drafters.layouts.table import Layout

DrafterFolder = Annotated[Path, typer.Argument(help="A drafter's folder, in any known layout.", metavar="DRAFTER")]
To = Annotated[str, typer.Option(help="The layout to write.", metavar="sglang|huggingface|own")]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write; must not exist.", metavar="DIR")]


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What the drafter's folder does not say, or is to be written otherwise."""

    target: Annotated[
        Path | None,
        typer.Option(help="The drafter's target, to check it. huggingface: its embedding is written.", metavar="DIR"),
    ] = None
    capture: Annotated[
        str | None,
        typer.Option(help="Hidden states it reads, where its folder does not say; 0: embedding.", metavar="3,17,30"),
    ] = None
    rope_theta: Annotated[
        float | None,
        typer.Option(help="RoPE base to write instead of the folder's, or where it names none.", metavar="X"),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(help="float16, bfloat16 or float32; default: as it is, bit for bit.", metavar="NAME"),
    ] = None


def convert(drafter: DrafterFolder, to: To, out: OutFolder, options: ConvertOptions) -> None:
    """Write a drafter in another layout: SGLang's, the authors' torch code's (huggingface), or this project's own.

    The tensors are the same, and the folder that is read is not changed. For SGLang, EAGLE-2, HASS and EAGLE-3 are
    written as stock SGLang loads them, PRISM as the authors' fork does. This project's plugin serves every layout.

    The authors' torch code takes the target's embedding from the drafter's folder: for huggingface name the --target,
    unless the folder that is read has it. EAGLE-3 may do without, if the target lies in shards.

    The authors' folders do not say which hidden states their PRISM* and EAGLE-3 read: of a target of 32 layers
    3,17,30 and 2,16,29. Their EAGLE-3 is trained with RoPE base 10000, whatever its config says; that is written.
    It is known by its place in their hub, Llama-3-8B-drafter/Eagle3-800k; elsewhere say --rope-theta 10000.

    \b
    Examples:
      prism-ae convert models/mini/mini-llama-2-prism-8x-3b11d12b3df9 --to sglang --out prism-sglang
      prism-ae convert prism-sglang --to huggingface --out prism-torch --target models/mini/mini-llama-2-bdeaf761cf5d
      prism-ae convert PRISM-800k --to own --out prism-star --capture 3,17,30 --target Meta-Llama-3-8B-Instruct
      prism-ae convert Llama-3-8B-drafter/Eagle3-800k --to sglang --out eagle3-sglang --capture 2,16,29
    """
    import torch

    from prism_ae import __version__
    from prism_ae.cli.output import say
    from prism_ae.drafters.layouts.embedding import find_embedding
    from prism_ae.drafters.layouts.read import read_drafter
    from prism_ae.drafters.layouts.readers import reader_notes
    from prism_ae.drafters.layouts.write import FORMS, cast, check_finite, in_layout, layout_for, write_files
    from prism_ae.errors import UsageError
    from prism_ae.io.words import pluralise
    from prism_ae.models.checkpoints import Manifest, publish, read_manifest
    from prism_ae.models.config import LARGEST
    from prism_ae.models.weights import FLOATS
    from prism_ae.sglang_prism.description import check_capturable

    target, dtype = options.target, options.dtype
    check_word("--to", to, FORMS)
    check_word("--dtype", dtype or FLOATS[0], FLOATS)
    states = _states(options.capture)
    if options.rope_theta is not None and not 0 < options.rope_theta <= LARGEST:
        raise UsageError(
            f"--rope-theta: {options.rope_theta:g} is not a RoPE base", "leave it out for the folder's own"
        )
    _check_places(drafter, out)

    sizes = _sizes(target)
    stored = read_drafter(drafter, sizes, states, options.rope_theta)
    config = stored.config
    check_finite(stored.state, str(drafter))
    if to == "sglang" and sizes:
        check_capturable(config, sizes, drafter)
    if states and states != config.aux_hidden_layers:
        reads = ",".join(map(str, config.aux_hidden_layers)) or "the last one alone"
        raise UsageError(f"--capture: {drafter} says which hidden states it reads: {reads}", "leave --capture out")
    layout = layout_for(to, config)
    state = cast(stored.state, getattr(torch, dtype), str(drafter)) if dtype else stored.state
    embedding = find_embedding(config, layout, drafter, target)
    data, tensors = in_layout(config, state, layout, str(drafter), embedding.tensor if embedding else None)
    source = read_manifest(drafter)
    recipe = _recipe(drafter, config, layout, dtype, embedding.file if embedding else None)
    name, scale = (source.name, source.scale) if source else (drafter.resolve().name, None)
    about = Manifest("drafter", name, scale, recipe, provenance={"prism_ae": __version__})
    written = publish(out, about, lambda folder: write_files(folder, data, tensors))
    if written.recipe != recipe:
        raise UsageError(f"{out} exists already: it appeared meanwhile", "choose another folder with --out")
    notes = reader_notes(
        config, layout, embedded=embedding is not None, layers=sizes.num_hidden_layers if sizes else None
    )
    first = f"{out}: {pluralise(len(tensors), 'tensor')} in the layout {layout.name}, read from {stored.layout}"
    say([first, *(f"  {note}" for note in notes)])


def _states(text: str | None) -> tuple[int, ...]:
    """ "3,17,30" as numbers; () for None."""
    from prism_ae.errors import UsageError

    if text is None:
        return ()
    try:
        states = tuple(int(part) for part in text.split(","))
    except ValueError:
        states = (-1,)
    if min(states) < 0:
        hint = "write their numbers as in --capture 3,17,30; 0 is the embedding, n what leaves layer n"
        raise UsageError(f"--capture: '{text}' is not a list of hidden states", hint)
    return states


def _check_places(drafter: Path, out: Path) -> None:
    """Raises MissingError for no folder to read; UsageError for a place that is taken, or in that folder."""
    from prism_ae.errors import MissingError, UsageError

    if not drafter.is_dir():
        raise MissingError(f"{drafter} is not a folder", "name a drafter's folder")
    source, place = drafter.resolve(), out.resolve()
    if source == place or source in place.parents:
        raise UsageError(f"--out: {out} is in {drafter}, which is not changed", "choose a folder elsewhere")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists already", "choose another folder with --out, or delete it")


def _sizes(target: Path | None) -> TargetSizes | None:
    from prism_ae.drafters.layouts.records import TargetSizes
    from prism_ae.errors import UsageError
    from prism_ae.models.checkpoints import read_json

    if target and target.is_file():
        raise UsageError(f"--target: {target} is a file", "name the target's folder")
    file = target / "config.json" if target else None
    return TargetSizes.from_hf(read_json(file), str(file)) if file else None


def _recipe(
    drafter: Path, config: DrafterConfig, layout: Layout, dtype: str | None, embedding: Path | None
) -> dict[str, Any]:
    """The facts that determine the folder: the files it is made from, and how they were understood."""
    import json

    from prism_ae.io.digests import file_digest
    from prism_ae.models.weights import TOKEN_MAP, open_weights

    weights = open_weights(drafter)
    beside = [file for file in (drafter / TOKEN_MAP,) if file.is_file()]
    files = sorted({drafter / "config.json", weights.source, *weights.files.values(), *beside})
    recipe = {
        "kind": "converted",
        "files": {file.name: file_digest(file) for file in files},
        "config": config.fields() | {"layer": dataclasses.asdict(config.layer)},
        "layout": layout.name,
        "dtype": dtype,
    }
    if embedding is not None:
        recipe["embedding"] = file_digest(embedding)
    return json.loads(json.dumps(recipe))  # lists for tuples, as it is read again
