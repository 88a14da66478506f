"""Where models are, what identifies them, and what a plan is told about one that is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from raising import raises

from prism_ae.io import checksums as sums
from prism_ae.models.checkpoints import Manifest, publish
from prism_ae.models.locate import Absent, DrafterKey, Located, locate_drafter, locate_target
from prism_ae.recipes.catalogue import Catalogue
from prism_ae.suites.load import load_suite

PAPER, MINI = load_suite("paper"), load_suite("mini")
LLAMA_2, LLAMA_3 = "llama-2-7b-chat", "llama-3-8b-instruct"


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"content of {name}")
    return folder


def located(found: Located | Absent) -> Located:
    assert isinstance(found, Located), found
    return found


def absent(found: Located | Absent) -> Absent:
    assert isinstance(found, Absent), found
    return found


def target(models: Path, name: str = LLAMA_2) -> Located | Absent:
    return locate_target(PAPER, name, models)


class TestDownloaded:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return fill(tmp_path / "Llama-2-7b-chat-hf", "config.json", "tokenizer.json", "model.safetensors", "README.md")

    def test_what_an_engine_reads_identifies_it(self, tmp_path: Path, folder: Path) -> None:
        seen = {located(target(tmp_path)).fingerprint}
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_text(f"new content of {name}")
            seen.add(located(target(tmp_path)).fingerprint)
        assert len(seen) == 4
        (folder / "README.md").write_text("other")
        fill(folder, "pytorch_model.bin")
        assert located(target(tmp_path)) == Located(folder, located(target(tmp_path)).fingerprint)
        assert located(target(tmp_path)).fingerprint in seen

    def test_the_place_does_not_identify_it(self, tmp_path: Path, folder: Path) -> None:
        moved = fill(tmp_path / "other/Llama-2-7b-chat-hf", *(path.name for path in folder.iterdir()))
        first, second = located(target(tmp_path)), located(target(tmp_path / "other"))
        assert (first.fingerprint, second.path) == (second.fingerprint, moved)

    def test_a_downloaded_folder_is_never_written_to(self, tmp_path: Path, folder: Path) -> None:
        before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
        located(target(tmp_path))
        assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before

    def test_sums_are_remembered_until_a_file_changes(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        summed: list[str] = []
        real = sums.file_digest
        monkeypatch.setattr(sums, "file_digest", lambda path: summed.append(path.name) or real(path))
        first = located(target(tmp_path))
        assert summed == ["config.json", "tokenizer.json", "model.safetensors"]
        assert located(target(tmp_path)) == first
        assert len(summed) == 3
        # Same size, other time: summed again, whatever comes out.
        os.utime(folder / "config.json", ns=(1, 1))
        assert located(target(tmp_path)) == first
        assert summed[3:] == ["config.json"]

    def test_it_is_said_before_files_are_read(self, tmp_path: Path, folder: Path) -> None:
        said: list[tuple[Path, int]] = []
        for _ in range(2):
            locate_target(PAPER, "llama-2-7b-chat", tmp_path, lambda *what: said.append(what))
        names = ("config.json", "tokenizer.json", "model.safetensors")
        assert said == [(folder, sum((folder / name).stat().st_size for name in names))]

    @pytest.mark.parametrize("damage", ["{", "[]", '{"config.json": 3, "tokenizer.json": {"sha256": 4}}'])
    def test_a_damaged_memory_is_no_harm(self, tmp_path: Path, folder: Path, damage: str) -> None:
        first = located(target(tmp_path))
        [memory] = (tmp_path / ".sums").rglob("*.json")
        memory.write_text(damage)
        assert located(target(tmp_path)) == first
        assert json.loads(memory.read_text()).keys() == {"config.json", "tokenizer.json", "model.safetensors"}

    def test_a_models_folder_that_cannot_be_written_is_no_harm(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / ".sums").write_text("a file where the folder would be")
        assert located(target(tmp_path)).path == folder

    def test_a_file_that_changes_meanwhile_is_refused(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from prism_ae.errors import CheckpointError

        def grow(path: Path) -> str:
            path.write_text(path.read_text() + "more")
            return "0" * 64

        monkeypatch.setattr(sums, "file_digest", grow)
        with raises(CheckpointError, folder / "config.json"):
            target(tmp_path)

    @pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_a_missing_file_is_named(self, tmp_path: Path, folder: Path, missing: str) -> None:
        (folder / missing).unlink()
        found = absent(target(tmp_path))
        assert found.reason == f"{folder / missing} is missing"
        assert "Akemiiii/Prism-AE" in found.hint

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        assert absent(target(tmp_path)).reason == f"{tmp_path / 'Llama-2-7b-chat-hf'} does not exist"

    @pytest.mark.parametrize("name", ["model-0000{}-of-00003.safetensors", "pytorch_model-0000{}-of-00003.bin"])
    def test_shards(self, tmp_path: Path, folder: Path, name: str) -> None:
        (folder / "model.safetensors").unlink()
        shards = [name.format(number) for number in (1, 2, 3)]
        fill(folder, *shards)
        first = located(target(tmp_path)).fingerprint
        (folder / shards[1]).write_text("other")
        assert located(target(tmp_path)).fingerprint != first
        (folder / shards[1]).unlink()
        assert absent(target(tmp_path)).reason == f"{folder / shards[1]} is missing"
        (folder / shards[1]).write_text("here again")
        (folder / shards[2]).unlink()
        assert absent(target(tmp_path)).reason == f"{folder / shards[2]} is missing"

    def test_a_manifest_identifies_the_folder_if_it_has_one(self, tmp_path: Path) -> None:
        folder = tmp_path / "Llama-2-7b-chat-hf"
        manifest = publish(
            folder, Manifest("target", "x", None, {}), lambda path: fill(path, "model.safetensors") and None
        )
        assert target(tmp_path) == Located(folder, manifest.fingerprint)
        (folder / "model.safetensors").unlink()
        assert absent(target(tmp_path)).reason == f"{folder / 'model.safetensors'} is missing"


class TestDrafters:
    def test_published_folders(self, tmp_path: Path) -> None:
        fill(tmp_path / "Llama-3-8B-drafter/HASS-2-600k", "config.json", "pytorch_model.bin")
        fill(tmp_path / "llama-160m", "config.json", "pytorch_model.bin", "tokenizer.json")
        assert located(locate_drafter(PAPER, DrafterKey(LLAMA_3, "hass2", "600k"), tmp_path)).path.name == "HASS-2-600k"
        assert located(locate_drafter(PAPER, DrafterKey(LLAMA_2, "standard", None), tmp_path)).path.name == "llama-160m"
        missing = absent(locate_drafter(PAPER, DrafterKey(LLAMA_3, "prism_star", "100k"), tmp_path))
        assert missing.reason == f"{tmp_path / 'Llama-3-8B-drafter/PRISM-100k'} does not exist"

    def test_what_was_never_published_says_so(self, tmp_path: Path) -> None:
        for name, at in (("prism", LLAMA_2), ("prism3", LLAMA_2), ("hass3", LLAMA_3)):
            found = absent(locate_drafter(PAPER, DrafterKey(at, name, "100k"), tmp_path))
            assert found == Absent(PAPER.drafters[name].absent, "")
        assert absent(locate_drafter(PAPER, DrafterKey(LLAMA_2, "hass2", "100k"), tmp_path)).reason == (
            "there is no HASS-2 for LLaMA-2-7B"
        )

    def test_what_was_published_for_sglang(self, tmp_path: Path) -> None:
        files = ("config.json", "model.safetensors")
        served = fill(tmp_path / "HASS-800K-SGLANG/llama2-7b", *files)
        torch = fill(tmp_path / "Llama-2-7B-drafter/HASS-1-800k", *files)
        small = fill(tmp_path / "Llama-2-7B-drafter/HASS-1-100k", *files)

        def path(scale: str, engine: str) -> Path:
            return located(locate_drafter(PAPER, DrafterKey(LLAMA_2, "hass", scale, engine), tmp_path)).path

        assert path("800k", "sglang") == served
        assert path("800k", "torch") == torch
        assert path("100k", "sglang") == small, "nothing else was published at this scale"
        (served / "model.safetensors").unlink()
        missing = absent(locate_drafter(PAPER, DrafterKey(LLAMA_2, "hass", "800k", "sglang"), tmp_path))
        assert missing.reason == f"{served / 'model.safetensors'} is missing"

    @pytest.mark.parametrize("engine", ["torch", "sglang"])
    def test_where_nothing_else_was_published_every_engine_reads_it(self, tmp_path: Path, engine: str) -> None:
        wanted = tmp_path / "LD-800k"
        found = absent(locate_drafter(PAPER, DrafterKey(LLAMA_2, "prism", "800k", engine), tmp_path))
        assert found.reason == f"{wanted} does not exist"
        assert "Akemiiii/Prism-AE" in found.hint
        fill(wanted, "config.json", "pytorch_model.bin")
        assert located(locate_drafter(PAPER, DrafterKey(LLAMA_2, "prism", "800k", engine), tmp_path)).path == wanted
        for target, scale in ((LLAMA_2, "600k"), (LLAMA_3, "800k")):
            found = absent(locate_drafter(PAPER, DrafterKey(target, "prism", scale, engine), tmp_path))
            assert found == Absent(PAPER.drafters["prism"].absent, "")

    def test_questions_that_make_no_sense(self, tmp_path: Path) -> None:
        with raises(ValueError, "vanilla"):
            locate_drafter(PAPER, DrafterKey(LLAMA_2, "vanilla", None), tmp_path)
        with raises(ValueError, "eagle2", "scale None"):
            locate_drafter(PAPER, DrafterKey(LLAMA_2, "eagle2", None), tmp_path)
        with raises(ValueError, "standard", "100k"):
            locate_drafter(PAPER, DrafterKey(LLAMA_2, "standard", "100k"), tmp_path)
        for name, drafter, scale in (("x", "hass", "100k"), (LLAMA_2, "x", "100k"), (LLAMA_2, "hass", "x")):
            with pytest.raises(KeyError):
                locate_drafter(PAPER, DrafterKey(name, drafter, scale), tmp_path)


def test_all_of_a_plans_look_ups_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from prism_ae.suites.load import load_suite\n"
        "from prism_ae.models.locate import locate_target\n"
        "from prism_ae.planning.lookup import LocalLookup\n"
        "import prism_ae.prompts.templates\n"
        "suite = load_suite('mini'); name = list(suite.targets)[0]\n"
        "locate_target(suite, name, Path(sys.argv[1])); LocalLookup(suite, Path(sys.argv[1])).prompts(name, 'qa', 2)\n"
        "print({'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", MINI.targets)
def test_the_mini_suite_before_training(tmp_path: Path, name: str) -> None:
    found = absent(locate_target(MINI, name, tmp_path))
    assert (found.reason, found.hint) == (f"target {name} is not trained yet", "run 'prism-ae train mini'")
    for drafter in MINI.drafters.values():
        for scale in [scale.name for scale in MINI.scales] if drafter.scaled else [None]:
            if drafter.has_checkpoint and drafter.exists_for(MINI.targets[name]):
                missing = absent(locate_drafter(MINI, DrafterKey(name, drafter.name, scale), tmp_path))
                assert missing.reason.endswith("is not trained yet")
                assert (scale or drafter.label) in missing.reason
                if drafter.name in ("prism_entry", "hass2_authors", "hass3_authors"):
                    assert (missing.hint, missing.opt_in) == ("run 'prism-ae train mini --variants'", True)
                else:
                    assert (missing.hint, missing.opt_in) == ("run 'prism-ae train mini'", False)
    missing = absent(locate_drafter(MINI, DrafterKey(name, "prism", "8x", training_seed=2), tmp_path))
    assert missing.reason == f"PRISM for {MINI.targets[name].label} at 8x with training seed 2 is not trained yet"
    assert missing.hint == "run 'prism-ae train mini --seeds 3'"


@pytest.mark.parametrize("name", MINI.targets)
def test_the_mini_suite_after_training(tmp_path: Path, name: str) -> None:
    catalogue = Catalogue(MINI, tmp_path)
    folder = catalogue.target(name).folder
    manifest = publish(folder, Manifest("target", name, None, {}), lambda path: fill(path, "config.json") and None)
    assert locate_target(MINI, name, tmp_path) == Located(folder, manifest.fingerprint)
    folder = catalogue.drafter(name, "prism", "4x").folder
    manifest = publish(folder, Manifest("drafter", "prism", "4x", {}), lambda path: fill(path, "config.json") and None)
    assert locate_drafter(MINI, DrafterKey(name, "prism", "4x"), tmp_path) == Located(folder, manifest.fingerprint)
    assert isinstance(locate_drafter(MINI, DrafterKey(name, "prism", "8x"), tmp_path), Absent)
    (folder / "config.json").unlink()
    damaged = absent(locate_drafter(MINI, DrafterKey(name, "prism", "4x"), tmp_path))
    assert damaged == Absent(f"{folder / 'config.json'} is missing", f"delete {folder}, then run 'prism-ae train mini'")


def test_suite_and_recipes_state_the_same_facts() -> None:
    """Figures are drawn by the suite and checkpoints are made by the recipes: they must not disagree."""
    from prism_ae.recipes.file import load_recipes

    recipes = load_recipes()
    assert list(recipes.targets) == list(MINI.targets)
    for target in MINI.targets.values():
        layers = recipes.targets[target.name].shape.layers
        assert max(target.capture + target.eagle3_capture) <= layers
        assert recipes.targets[target.name].shape.window >= MINI.limits.max_length
        for drafter in MINI.drafters.values():
            if drafter.kind == "draft-head":
                trained = target.name in recipes.drafters[drafter.name].targets
                assert trained == drafter.exists_for(target), (target.name, drafter.name)
    assert set(recipes.drafters) == {drafter.name for drafter in MINI.drafters.values() if drafter.kind == "draft-head"}
    assert recipes.corpus is not None
    assert f"(× {recipes.corpus.unit} conversations)" in MINI.scale_axis
