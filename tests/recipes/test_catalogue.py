"""The catalogue: what a plan needs to know about trained models, without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prism_ae.errors import ConfigError
from prism_ae.recipes.catalogue import Artifact, Catalogue, SuiteOrder
from prism_ae.recipes.file import MINI, load_recipes, passes_summary, recipe_summary
from prism_ae.suites.load import load_suite

SUITE = load_suite("mini")
TINY = Path(__file__).parents[1] / "training" / "tiny.toml"
MODELS = Path("models")
OWN = Catalogue(SUITE, MODELS)


def with_recipes(path: Path) -> Catalogue:
    return Catalogue(dataclasses.replace(SUITE, recipes=str(path)), MODELS)


def test_it_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from prism_ae.recipes.catalogue import Catalogue;"
        "from prism_ae.suites.load import load_suite;"
        "Catalogue(load_suite('mini'), Path('models')).artifacts();"
        "sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_model_of_the_suite_has_a_folder() -> None:
    for target in SUITE.targets.values():
        assert OWN.target(target.name).folder.parent == MODELS / "mini"
        for drafter in SUITE.drafters.values():
            if not drafter.has_checkpoint or not drafter.exists_for(target):
                continue
            for scale in [scale.name for scale in SUITE.scales] if drafter.scaled else [None]:
                assert OWN.drafter(target.name, drafter.name, scale).folder.name.startswith(target.name)


def test_recipes_and_suite_name_the_same_drafters() -> None:
    recipes = load_recipes()
    assert set(recipes.targets) == set(SUITE.targets)
    assert {name: set(recipe.targets) for name, recipe in recipes.drafters.items()} == {
        drafter.name: {target.name for target in SUITE.targets.values() if drafter.exists_for(target)}
        for drafter in SUITE.drafters.values()
        if drafter.kind == "draft-head"
    }


def test_unknown_names_have_no_folder() -> None:
    for names in [("mini-llama-3", "nothing", "1x"), ("mini-llama-3", "hass", "3x"), ("llama", "hass", "1x")]:
        with pytest.raises(KeyError):
            OWN.drafter(*names)
    with pytest.raises(KeyError):
        OWN.drafter("mini-llama-2", "hass2", "1x")


def test_folders_are_distinct_and_needs_come_first() -> None:
    artifacts = OWN.artifacts()
    assert len({artifact.folder for artifact in artifacts}) == len(artifacts)
    seen: set[Path] = set()
    for artifact in artifacts:
        assert seen.issuperset(artifact.needs)
        seen.add(artifact.folder)


def _edited(tmp_path: Path, *edits: tuple[str, str]) -> dict[str, Artifact]:
    text = TINY.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"{abs(hash(edits))}.toml"
    path.write_text(text)
    return {artifact.label: artifact for artifact in with_recipes(path).artifacts()}


def _changed(tmp_path: Path, *edits: tuple[str, str]) -> set[str]:
    before, after = _edited(tmp_path), _edited(tmp_path, *edits)
    return {label for label in before if before[label].folder != after[label].folder}


def test_a_change_renames_what_it_changes_and_what_builds_on_it(tmp_path: Path) -> None:
    everything = set(_edited(tmp_path))
    standard = {"mini-llama-3 standard"}
    hass = {label for label in everything if " hass " in label}
    prism = {label for label in everything if " prism" in label}
    assert _changed(tmp_path, ("intermediate_size = 16\nlayers = 11", "intermediate_size = 24\nlayers = 11")) == (
        everything - standard
    )
    assert _changed(tmp_path, ("vocabulary = 300", "vocabulary = 310")) == everything
    assert _changed(tmp_path, ("layers = 2\n", "layers = 3\n")) == standard
    assert _changed(tmp_path, ("feature_weight = 1.0", "feature_weight = 0.5")) == hass | prism
    assert _changed(tmp_path, ("forwards = 3", "forwards = 4")) == prism
    assert _changed(tmp_path, ("6x = 0.6", "6x = 0.7")) == {label for label in prism if label.endswith(" 6x")}
    assert _changed(tmp_path, ("6x = 1.5", "6x = 1.6")) == {label for label in everything if label.endswith(" 6x")}
    assert _changed(tmp_path, ("variant = true", "variant = false")) == set()
    assert _changed(tmp_path, ("unit = 6", "unit = 7")) == everything - standard - {"mini-llama-3"}


def test_the_suite_keeps_its_names() -> None:
    """What was trained and measured stays valid: a field that came later and has its default renames nothing."""
    names = "\n".join(artifact.folder.name for artifact in (*OWN.artifacts(), *OWN.artifacts(1)))
    found = hashlib.sha256(names.encode()).hexdigest()
    assert found == "ccf24c91104194d56a7149ca89dc0ece35e4fd5aecc599b040434538e486c1dc"


@pytest.mark.parametrize(
    ("part", "said", "renamed"),
    [
        ("[drafter_training]", "tokens = 0\ndtype = 'float32'\naccumulate = 1\npositions = 0", ""),
        ("[drafter_training]", "tokens = 2048", " "),
        ("[drafter_training]", "dtype = 'bfloat16'", " "),
        ("[drafter_training]", "accumulate = 2", " "),
        ("[drafters.hass]", "counted = 'answers'\nlayers_from_target = false", ""),
        ("[drafters.hass]", "counted = 'all'", " hass "),
        ("[drafters.hass]", "layers_from_target = true", " hass "),
    ],
)
def test_a_later_field_renames_where_it_is_used(part: str, said: str, renamed: str, tmp_path: Path) -> None:
    heads = {label for label, one in _edited(tmp_path).items() if one.kind == "draft-head"}
    builds_on_it = {label for label in heads if renamed == " hass " and "prism" in label}
    expected = {label for label in heads if renamed and renamed in label} | builds_on_it
    assert _changed(tmp_path, (f"{part}\n", f"{part}\n{said}\n")) == expected


@pytest.mark.parametrize(
    ("part", "said", "key"),
    [
        ("[drafter_training]", "accumulate = 0", "drafter_training.accumulate"),
        ("[drafter_training]", "tokens = -1", "drafter_training.tokens"),
        ("[drafters.prism]", "layers_from_target = true", "drafters.prism.layers_from_target"),
    ],
)
def test_a_later_field_is_checked(part: str, said: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)):
        _edited(tmp_path, (f"{part}\n", f"{part}\n{said}\n"))


def test_another_corpus_or_trainer_renames_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {artifact.folder for artifact in with_recipes(TINY).artifacts()}
    for name, value in (("corpus.VERSION", "other"), ("TRAINER_VERSION", -1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"prism_ae.recipes.catalogue.{name}", value)
            assert before.isdisjoint(artifact.folder for artifact in with_recipes(TINY).artifacts())
    assert before == {artifact.folder for artifact in with_recipes(TINY).artifacts()}


def test_summaries_say_how_a_drafter_was_trained() -> None:
    recipes = load_recipes(MINI)
    lines = {name: recipe_summary(name, recipes) for name in recipes.drafters}
    assert all(line.startswith(f"{name}: ") and "\n" not in line for name, line in lines.items())
    assert f"{recipes.drafters['prism'].forwards} forwards" in lines["prism"]
    assert "from hass's weights" in lines["prism"]
    assert "SmoothL1" in lines["hass"]
    assert "SmoothL1" not in lines["prism"]
    assert "CE 0.1" in lines["hass"]
    assert "CE 0.1" in lines["prism"]
    assert "its own keys and values" in lines["prism"]
    assert "module 0's keys and values" in lines["prism_entry"]
    assert "0.8^j" in lines["eagle3"]
    assert "keys and values" not in lines["hass"]
    assert "as in the authors' training" in lines["hass2_authors"]
    assert "as in the authors' training" not in lines["hass2"]
    assert "1.3 passes" in passes_summary(recipes, extra=False)
    assert "(the authors: 40 30 25 20 15 epochs)" in passes_summary(recipes, extra=False)
    assert "extra" not in passes_summary(recipes, extra=False)
    assert "(the authors: 10 8 7 6 5 epochs)" in passes_summary(recipes, extra=True)


def test_passes_stand_in_the_ratio_of_the_authors_epochs() -> None:
    training = load_recipes().drafter_training
    for stage in (training.scratch, training.extra):
        assert list(stage.passes) == list(stage.authors_epochs) == [scale.name for scale in SUITE.scales]
        unit = stage.passes["8x"] / stage.authors_epochs["8x"]
        for scale, passes in stage.passes.items():
            assert passes == pytest.approx(unit * stage.authors_epochs[scale], abs=5e-4)
    scratch = training.scratch.passes
    steps = [scratch[scale.name] * scale.value / scratch["1x"] for scale in SUITE.scales]
    assert steps == pytest.approx([1, 1.5, 2.5, 3, 3], abs=2e-3)


def test_further_seeds_and_variants_are_trained_on_request() -> None:
    own = OWN.artifacts()
    assert SuiteOrder(OWN).artifacts == tuple(one for one in own if not one.variant)
    assert SuiteOrder(OWN, variants=True).artifacts == own
    assert {one.training_seed for one in own} == {0}
    more = [one for one in SuiteOrder(OWN, seeds=3).artifacts if one not in own]
    assert {one.training_seed for one in more} == {1, 2}
    assert {one.scale for one in more} == set(SUITE.seed_scales) == {"2x", "8x"}
    assert {one.kind for one in more} == {"draft-head"}
    assert {(one.target, one.name, one.scale) for one in more if one.training_seed == 2} == {
        (one.target, one.name, one.scale) for one in SuiteOrder(OWN).artifacts if one.scale in SUITE.seed_scales
    }
    folders = {one.folder for one in (*own, *more)}
    assert len(folders) == len(own) + len(more)
    for one in more:
        assert folders.issuperset(one.needs)
        first = OWN.drafter(one.target, one.name, one.scale)
        assert one.recipe["training"]["seed"] == first.recipe["training"]["seed"] + one.training_seed
        assert one.folder.name.startswith(f"{one.target}-{one.name}-{one.scale}-seed{one.training_seed}-")
        assert one == OWN.drafter(one.target, one.name, one.scale, one.training_seed)
    assert next(one for one in more if one.training_seed == 2).command == "prism-ae train mini --seeds 3"
    assert next(one for one in own if one.variant).command == "prism-ae train mini --variants"
    assert more[0].label.endswith(" seed 1")


def test_a_warm_start_of_a_seed_has_that_seed() -> None:
    prism = OWN.drafter("mini-llama-2", "prism", "8x", 2)
    assert prism.needs[1] == OWN.drafter("mini-llama-2", "hass", "8x", 2).folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('start = "hass"', 'start = "has"', "drafters.prism.start: no recipe 'has'"),
        ('start = "hass"', 'start = "eagle3"', "another cell"),
        ("unit = 6", 'unit = "many"', "corpus.unit"),
        ("unit = 6", "unit = 6\nunits = 7", "unknown key 'corpus.units'"),
        ('targets = ["mini-llama-3"]', 'targets = ["llama"]', "no target 'llama'"),
        ("seed = 3\n", "", "'drafter_training.seed' is missing"),
        ("6x = 1.5", "6x = 0", "drafter_training.scratch.passes: every scale needs a number above 0"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    assert old in TINY.read_text()
    path.write_text(TINY.read_text().replace(old, new, 1 if "seed" in old else -1))
    with pytest.raises(ConfigError, match=r"wrong\.toml") as caught:
        load_recipes(path)
    assert message in str(caught.value)


def test_a_recipe_without_a_scale_of_the_suite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TINY.read_text().replace("6x = 0.6, ", ""))
    with pytest.raises(ConfigError, match=r"wrong\.toml: drafter_training\.extra\.passes: scale '6x' is missing"):
        with_recipes(path).artifacts()


def test_named_drafters_bring_what_they_start_from() -> None:
    """And the targets and small models; of every seed, and a variant that is named."""
    order = SuiteOrder(OWN, seeds=2, drafters=("prism", "hass2_authors"))
    found = order.artifacts
    assert {one.name for one in found if one.kind == "draft-head"} == {"prism", "hass", "hass2_authors"}
    assert {one.training_seed for one in found if one.name in ("prism", "hass")} == {0, 1}
    assert {one.kind for one in found} == {"target", "model", "draft-head"}
    folders = {one.folder for one in found}
    assert all(set(one.needs) <= folders for one in found)
