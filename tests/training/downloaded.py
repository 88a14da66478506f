"""A suite of a downloaded target, small enough that it writes its data and its drafters learn in seconds."""

from __future__ import annotations

import re
from pathlib import Path

import prism_ae.suites
from prism_ae.mini import corpus
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.prompts.conversation import open_conversation
from prism_ae.recipes.file import TargetTraining
from prism_ae.suites.load import load_suite
from prism_ae.training.examples import encode
from prism_ae.training.target import new_target, train_target
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer

TARGET = "mini-llama-3"
FOLDER = "A-Target-Instruct"

RECIPES = """
[data]
seed = 1
unit = 400
dtype = "bfloat16"
rows = 16
attempts = 32
ngram = 4
user = { temperature = 1.0, min_tokens = 2, max_tokens = 40, max_repeated = 0.5 }
answer = { temperature = 0.0, min_tokens = 2, max_tokens = 24, max_repeated = 0.5 }

[measured]
machine = "a machine of the tests"
cores = 1
written = 100.0
kept = 0.5
read_per_answer = 2.0
states = 1000.0
base = 0.5
forward = 0.25

[drafter_training]
rows = 4
tokens = 256
betas = [0.9, 0.95]
weight_decay = 0.0
warmup = 2
clip = 1.0
seed = 3
scratch = { learning_rate = 4e-3, decay = 0.5, passes = { 1x = 2.0, 2x = 1.5 }, authors_epochs = { 1x = 2, 2x = 1 } }
extra = { learning_rate = 2e-3, decay = 1.0, passes = { 1x = 1.0, 2x = 1.0 }, authors_epochs = { 1x = 1, 2x = 1 } }

[drafters.hass]
cell = "eagle"
layers = 1
step_mapping = [0]
reads = "final"
forwards = 3
detach = true
feature_weight = 1.0
soft_weight = 0.1
counted = "all"

[drafters.prism]
cell = "eagle"
layers = 1
step_mapping = [0, 1]
reads = "final"
forwards = 3
detach = false
feature_weight = 0.0
soft_weight = 0.1
start = "hass"
context = "own"

[drafters.eagle2]
cell = "eagle"
layers = 1
step_mapping = [0]
reads = "capture"
forwards = 1
detach = true
feature_weight = 1.0
soft_weight = 0.1
variant = true
"""


def write_downloaded_suite(folder: Path) -> Path:
    """``real.toml`` with ``real.recipes.toml`` in ``folder``: the mini suite's second target, as a folder."""
    text = (Path(prism_ae.suites.__file__).parent / "mini.toml").read_text()
    for old, new in (
        (r'^name = "mini"', 'name = "real"'),
        (r'^recipes = ".*"', 'recipes = "real.recipes.toml"'),
        (r"^models_hint = .*", 'models_hint = "put the target there"'),
        (r"(?s)^scales = \[.*?^\]", 'scales = [{ name = "1x", value = 1 }, { name = "2x", value = 2 }]'),
        (r"^seed_scales = .*", 'seed_scales = ["1x"]'),
        (r"(?s)^\[targets\.mini-llama-2\].*?(?=^\[)", ""),
        (r"^\[targets\.mini-llama-3\]", f'[targets.{TARGET}]\nfolder = "{FOLDER}"'),
        (r"^capture = .*", "capture = [1, 2, 3]"),
        (r"^eagle3_capture = .*", "eagle3_capture = [1, 2, 3]"),
        (r'"llama-2", ', ""),
        (r"^\[drafters\.standard\]", '[drafters.standard]\nabsent = "there is none"'),
    ):
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count, old
    path = folder / "real.toml"
    path.write_text(text)
    (folder / "real.recipes.toml").write_text(RECIPES)
    return path


def write_target(models: Path) -> Path:
    """A target that has learnt the form of a conversation, user turns included, as a folder from elsewhere."""
    suite = load_suite("mini")
    template, system = suite.templates[suite.targets[TARGET].template], suite.system_prompt
    folder = models / FOLDER
    folder.mkdir(parents=True)
    data = corpus.conversations(1500, 8)
    tokenizer = train_tokenizer(data, template, system, 400, single_digits=False)
    model = new_target(LlamaConfig(tokenizer.get_vocab_size(), 32, 48, 4, 2, 1, 1e-5, 1000.0, 512), 0.5, 1)
    end = {"eos_token_id": tokenizer.token_to_id("<|eot_id|>")}
    save_target(folder, model, end)
    save_tokenizer(folder, tokenizer, template, 512)
    turns = encode(data, open_conversation(folder, template, system), 512).turns
    training = TargetTraining(1500, 1, 16, 1e-2, 2e-2, 2, 0.4, 1.0, 0.5, 1.0)
    train_target(model, [turn for told in turns for turn in told], training, lambda steps, loss: None)
    save_target(folder, model, end)
    return folder
