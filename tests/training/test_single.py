"""One drafter for a target of one's own, from a file of conversations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from raising import raises

from prism_ae.drafters.checkpoint import load_drafter
from prism_ae.errors import ConfigError, MissingError, UsageError
from prism_ae.mini import corpus
from prism_ae.models.checkpoints import load_target, read_manifest, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.prompts.conversation import open_conversation
from prism_ae.recipes.file import load_recipes
from prism_ae.suites.load import load_suite
from prism_ae.training.drafter import Data, frequent_tokens, new_drafter, train, warm_started
from prism_ae.training.examples import Example, encode
from prism_ae.training.features import FeaturePlace, Features
from prism_ae.training.jsonl import write_jsonl
from prism_ae.training.single import DrafterOrder, TrainingReports, captured_states, train_drafter
from prism_ae.training.target import new_target
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer

SUITE = load_suite("mini")
TEMPLATE, SYSTEM = SUITE.templates["llama-3"], "Be kind."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random target of eight layers and a file of conversations."""
    place = tmp_path_factory.mktemp("single")
    data = corpus.conversations(24, 8)
    write_jsonl(place / "data.jsonl", data)
    tokenizer = train_tokenizer(data, TEMPLATE, SYSTEM, 320, single_digits=False)
    config = LlamaConfig(tokenizer.get_vocab_size(), 16, 24, 8, 2, 1, 1e-5, 1000.0, 256)
    (place / "target").mkdir()
    save_target(place / "target", new_target(config, 0.5, 1))
    save_tokenizer(place / "target", tokenizer, TEMPLATE, 256)
    return place


@pytest.mark.parametrize("name", load_recipes().drafters)
def test_every_recipe_trains_and_repeats(name: str, place: Path, tmp_path: Path) -> None:
    parts: list[float] = []
    for folder in ("a", "b"):
        order = DrafterOrder(name, place / "target", place / "data.jsonl", tmp_path / folder, TEMPLATE, SYSTEM)
        out = train_drafter(order, TrainingReports(step=lambda part, loss: parts.append(part)))
    assert parts[-1] == pytest.approx(1.0)
    first, second = (read_manifest(tmp_path / folder) for folder in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first.files == second.files
    target = load_target(place / "target", torch.float32, torch.device("cpu"))
    config = load_drafter(out, target, torch.float32, torch.device("cpu")).config
    recipe = load_recipes().drafters[name]
    assert config.step_mapping == tuple(recipe.step_mapping)
    assert config.layer.num_hidden_layers == recipe.layers
    assert len(config.aux_hidden_layers) == (0 if recipe.reads == "final" else 3)


def test_other_data_give_another_drafter(place: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "other.jsonl", corpus.conversations(24, 9))
    folders = []
    for file in (place / "data.jsonl", tmp_path / "other.jsonl"):
        out = tmp_path / file.stem
        folders.append(train_drafter(DrafterOrder("eagle2", place / "target", file, out, TEMPLATE, SYSTEM)))
    first, second = (read_manifest(folder) for folder in folders)
    assert first is not None
    assert second is not None
    assert first.recipe["data"] != second.recipe["data"]
    assert first.files["model.safetensors"] != second.files["model.safetensors"]


def test_mistakes_are_messages(place: Path, tmp_path: Path) -> None:
    def train(name: str = "hass", target: str = "target", data: str = "data.jsonl", out: Path | None = None) -> None:
        train_drafter(DrafterOrder(name, place / target, place / data, out or tmp_path / "out", TEMPLATE, SYSTEM))

    with raises(UsageError, "'has'", "'hass'"):
        train(name="has")
    with raises(UsageError, place / "target"):
        train(out=place / "target")
    with pytest.raises(MissingError):
        train(target="nowhere")
    with pytest.raises(MissingError):
        train(data="nothing.jsonl")
    (place / "long.jsonl").write_text(
        '{"conversations": [{"user": "%s", "assistant": "b"}]}\n' % ("no space left " * 300)
    )
    with raises(ConfigError, "long.jsonl"):
        train(data="long.jsonl")
    assert not (tmp_path / "out").exists()


def test_captured_states_are_the_papers_places() -> None:
    assert captured_states("capture", 32) == (3, 17, 30)
    assert captured_states("eagle3_capture", 32) == (2, 16, 29)
    assert captured_states("final", 2) == ()
    for target in SUITE.targets.values():
        assert captured_states("capture", 12) == target.capture
        assert captured_states("eagle3_capture", 12) == target.eagle3_capture
    with raises(ConfigError, 4):
        captured_states("capture", 4)


def _data(place: Path, cache_bytes: int) -> Data:
    target = load_target(place / "target", torch.float32, torch.device("cpu"))
    talk = open_conversation(place / "target", TEMPLATE, SYSTEM)
    turns = encode(corpus.conversations(24, 8), talk, 256).turns
    examples = [example for conversation in turns for example in conversation]
    return Data(Features(target, examples, (2, 4, 6), FeaturePlace(cache_bytes)), len(examples), "8x")


def test_cached_features_are_what_the_target_says(place: Path) -> None:
    cached, direct = _data(place, 1 << 30).features, _data(place, 0).features
    rows = [3, 0, 11]
    for capture in ((), (4,), (6, 2)):
        mine, theirs = cached.read(rows, capture), direct.read(rows, capture)
        assert torch.equal(mine.batch.ids, theirs.batch.ids)
        for row, length in enumerate(mine.batch.lengths.tolist()):
            torch.testing.assert_close(mine.hidden[row, :length], theirs.hidden[row, :length], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                mine.aux_hidden[row, :length], theirs.aux_hidden[row, :length], rtol=1e-4, atol=1e-5
            )


def test_draft_vocabulary_is_the_most_frequent_answer_tokens() -> None:
    examples = [Example((9, 9, 9, 9, 5, 5, 2, 7), 4), Example((9, 1, 7, 7), 2)]
    assert frequent_tokens(examples, 2, 12).tolist() == [5, 7]
    assert frequent_tokens(examples, 4, 12).tolist() == [0, 2, 5, 7]


def test_a_warm_start_copies_module_0_everywhere(place: Path) -> None:
    data, recipes = _data(place, 1 << 30), load_recipes()
    target, training = data.features.target, recipes.drafter_training
    examples = data.features.examples
    start = new_drafter(recipes.drafters["hass_star"], target, (2, 4, 6), examples, 1)
    prism = warm_started(recipes.drafters["prism3"], target, start)
    for module in prism.modules_:
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, start.modules_[0].state_dict()[name])
    assert torch.equal(prism.hidden_proj.weight, start.hidden_proj.weight)
    train(recipes.drafters["prism3"], training, data, prism, lambda steps, loss: None)
    weights = [module.layers[0].mlp.down.weight for module in prism.modules_]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
