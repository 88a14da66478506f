"""Both stages of a suite: the data that its targets write, then the drafters (and in the mini suite the targets).

Each can be stopped and killed at any point; the same command makes the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prism_ae.devices.slots import Slot, cpu_threads
from prism_ae.errors import MissingError
from prism_ae.io.digests import file_digest
from prism_ae.models.locate import Located, catalogue_of, locate_target
from prism_ae.processes.progress import Display
from prism_ae.recipes.catalogue import Catalogue, SuiteOrder
from prism_ae.recipes.own_data import OwnData, check_own_data, note_own_data
from prism_ae.suites.records import Suite
from prism_ae.training.jobs import plan_jobs
from prism_ae.training.material import material
from prism_ae.training.run import Trained, train_suite
from prism_ae.training.written.order import DataOrder
from prism_ae.training.written.run import write_data


def open_suite(suite: Suite, models_dir: Path, data: Path | None) -> Catalogue:
    """What is trained here of a suite whose targets are here.

    Args:
        data: conversations of one's own; None: those that the target writes.

    Raises:
        MissingError: a downloaded target, or the data, are not there.
        ConfigError: the suite has no recipes, or its drafters here learn from other data.
    """
    catalogue = catalogue_of(suite, models_dir)
    recipes = catalogue.recipes
    for name, record in suite.targets.items():
        asked = any(not one.targets or name in one.targets for one in recipes.drafters.values())
        if record.folder and asked and name not in catalogue.fingerprints:
            found = locate_target(suite, name, models_dir)
            assert not isinstance(found, Located)
            hint = f"run '{_download(suite)}'" if suite.hub else found.hint
            raise MissingError(f"the drafters of {record.label} are trained on it: {found.reason}", hint)
    try:
        own = OwnData(file_digest(data), data.name) if data else None
    except OSError as error:
        raise MissingError(f"{data} cannot be read: {error.strerror}", "name a file of conversations") from error
    check_own_data(catalogue.folder, own)
    return dataclasses.replace(catalogue, data_sum=own.sum if own else "")


def _download(suite: Suite) -> str:
    return f"prism-ae download --suite {suite.source or suite.name}"


def make_suite(
    order: SuiteOrder, write_slots: Sequence[Slot], train_slots: Sequence[Slot], display: Display
) -> Trained:
    """Write the data that are missing, then train what is missing.

    Args:
        write_slots: workers that write, of one thread each on a CPU.
        train_slots: workers that train.

    Raises:
        as `write_data` and `train_suite`; ConfigError: the data are too few.
    """
    pending = {job.artifact.target for job in plan_jobs(order)}
    for name in order.downloaded_targets:
        if name not in pending:
            continue
        if order.data is None:
            _write(order, name, tuple(write_slots), display)
        else:
            for line in material(order, name).lines:
                display.note(line)
            note_own_data(order.catalogue.folder, OwnData(order.catalogue.data_sum, order.data.name))
    trained = train_suite(order, train_slots, display)
    for line in trained.in_words():
        display.note(line)
    return trained


def _write(order: SuiteOrder, name: str, slots: tuple[Slot, ...], display: Display) -> None:
    catalogue = order.catalogue
    suite, recipe = catalogue.suite, catalogue.data_recipe()
    target = locate_target(suite, name, catalogue.models_dir)
    assert isinstance(target, Located)
    template = suite.templates[suite.targets[name].template]
    tokens = recipe.answer_tokens(order.largest.value)
    folder = catalogue.data_folder(name)
    summary = write_data(DataOrder(folder, target, template, suite.system_prompt, recipe, tokens, slots), display)
    for line in summary.in_words():
        display.note(line)
    if summary.written:
        for line in summary.shown_examples():
            display.note(line)


def training_slots(slots: Sequence[Slot], cores: int, *, chosen: bool) -> tuple[Slot, ...]:
    """Where drafters of a real target are trained: GPUs as they are; of a CPU one worker with all cores, unless a
    number of workers was ``chosen``: those share them."""
    if slots[0].device != "cpu":
        return tuple(slots)
    used = slots if chosen else slots[:1]
    threads = max(1, cores // len(used))
    return tuple(
        dataclasses.replace(slot, threads=threads, environment={**slot.environment, **cpu_threads(threads)})
        for slot in used
    )
