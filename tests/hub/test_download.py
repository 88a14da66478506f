"""Downloads from both hubs' protocols, through their real client libraries: a verified folder or one clear message."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from hub_server import COMMIT
from hub_world import EAGLE, FOLDERS, HASS, OFFICIAL, TARGET, World, content
from raising import raises

import prism_ae.hub.download
from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError, UsageError
from prism_ae.hub.selection import HubName
from prism_ae.models.locate import DrafterKey, Located, locate_drafter, locate_target
from prism_ae.suites.load import load_suite

WEIGHTS = f"{EAGLE}/model.safetensors"


def test_everything_arrives_verified_and_noted(world: World) -> None:
    world.get()
    assert world.here() == world.expected()
    questions = world.models / "benchmarks"
    assert {p.relative_to(questions).as_posix(): p.read_bytes() for p in questions.rglob("*.jsonl")} == (
        world.hubs.questions
    )
    suite = load_suite("paper")
    assert isinstance(locate_target(suite, "llama-2-7b-chat", world.models), Located)
    assert isinstance(locate_drafter(suite, DrafterKey("llama-2-7b-chat", "hass", "100k"), world.models), Located)
    noted = json.loads((world.models / "downloads.json").read_text())["folders"]
    assert set(noted) == set(FOLDERS)
    assert noted[HASS]["revision"] == ("master" if world.hub == "modelscope" else COMMIT)
    assert not (world.models / ".staging").exists()
    [todo] = world.said
    assert todo.size == sum(map(len, world.expected().values()))
    assert world.states[-1].of_size == todo.size


def test_a_second_time_nothing_is_asked(world: World) -> None:
    world.get()
    world.hubs.down = True
    world.hubs.requests.clear()
    world.get()
    assert not world.hubs.requests


def test_only_what_is_missing_or_damaged_is_fetched(world: World) -> None:
    world.get()
    (world.models / WEIGHTS).write_bytes(content("something else"))
    (world.models / HASS / "config.json").unlink()
    shutil.rmtree(world.models / TARGET)
    (world.models / "benchmarks/qa/question.jsonl").write_bytes(b"{}")
    world.get()
    assert world.here() == world.expected()
    gone = {name for name in world.expected() if name.startswith(TARGET)}
    assert world.hubs.fetched() == {WEIGHTS, f"{HASS}/config.json", "qa/question.jsonl"} | gone


def test_a_broken_connection_is_resumed(world: World) -> None:
    world.hubs.faults[WEIGHTS] = ["break", "break"]
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)
    starts = [start for path, start in world.hubs.asked if path == WEIGHTS]
    assert starts == [0, 20_000, 30_000]  # the half of what was asked for each time


def test_server_errors_in_the_middle_are_tried_again(world: World) -> None:
    world.hubs.faults[WEIGHTS] = ["break", 503, 500]
    world.hubs.faults["qa/question.jsonl"] = [502]
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


def test_what_stays_broken_is_said_and_the_rest_is_there(world: World) -> None:
    world.hubs.faults[WEIGHTS] = [404] * 50
    with raises(MissingError, WEIGHTS, "Prism-AE"):
        world.get()
    assert world.here() == world.expected(TARGET, HASS)
    world.hubs.faults.clear()
    world.get()
    assert world.here() == world.expected()
    assert world.hubs.fetched() == {WEIGHTS}


def test_a_corrupted_file_is_fetched_again(world: World) -> None:
    world.hubs.faults[WEIGHTS] = ["corrupt"]
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


def test_a_small_file_without_a_published_sha256_is_verified_too(world: World) -> None:
    world.hubs.faults[f"{EAGLE}/config.json"] = ["corrupt"] * 20
    with raises(CheckpointError, f"{EAGLE}/config.json"):
        world.get([EAGLE])


def test_a_file_that_stays_corrupted_never_gets_into_its_place(world: World) -> None:
    world.hubs.faults[WEIGHTS] = ["corrupt"] * 20
    with raises(CheckpointError, WEIGHTS):
        world.get([EAGLE, HASS])
    assert world.here() == world.expected(HASS)


def test_a_size_that_the_hub_lies_about_is_refused(world: World) -> None:
    world.hubs.sizes[WEIGHTS] = 35_000
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as raised:
        world.get([EAGLE])
    assert "40,000" in str(raised.value) or "40000" in str(raised.value)
    assert world.here() == {}


def test_a_file_that_is_longer_than_said_is_fetched_again(world: World) -> None:
    world.hubs.faults[WEIGHTS] = ["long"]
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "a/../../b", "a\\..\\b", "C:x", "a//b", "a\nb"])
def test_a_hostile_name_stops_everything_from_that_repository(world: World, name: str) -> None:
    world.hubs.listed = [name]
    with raises(CheckpointError, "Prism-AE", repr(name)[1:-1]):
        world.get([EAGLE])
    assert world.here() == {}
    assert not world.hubs.fetched() - set(world.hubs.questions)


def test_links_out_of_the_models_folder_are_not_written_through(world: World, tmp_path: Path) -> None:
    world.get([EAGLE])
    outside = tmp_path / "outside"
    (world.models / EAGLE).rename(outside)
    (world.models / EAGLE).symlink_to(outside)
    world.get([EAGLE])  # whole as it is
    (outside / "config.json").write_bytes(b"mine")
    with raises(CheckpointError, EAGLE):
        world.get([EAGLE])
    assert (outside / "config.json").read_bytes() == b"mine"


def test_a_changed_repository_is_noticed_and_taken_on_request(world: World) -> None:
    world.get([EAGLE])
    changed = content("a second version")
    world.repository[WEIGHTS] = changed
    (world.models / EAGLE / "config.json").unlink()
    with raises(CheckpointError, EAGLE, "model.safetensors"):
        world.get([EAGLE])
    world.get([EAGLE], renew=True)
    assert (world.models / WEIGHTS).read_bytes() == changed
    world.get([EAGLE])


def test_the_other_hub_must_have_the_same(world: World) -> None:
    world.get([EAGLE])
    shutil.rmtree(world.models / EAGLE)
    other: HubName = "huggingface" if world.hub == "modelscope" else "modelscope"
    again = World(world.hubs, world.models, other)
    again.get([EAGLE])
    assert again.here() == world.expected(EAGLE)
    shutil.rmtree(world.models / EAGLE)
    again.repository[f"{EAGLE}/config.json"] = b'{"of": "somebody else"}'
    with raises(CheckpointError, EAGLE, "config.json"):
        again.get([EAGLE])


def test_small_content_that_differs_between_hubs_in_equal_size_is_noticed(world: World) -> None:
    world.get([EAGLE])
    shutil.rmtree(world.models / EAGLE)
    config = world.repository[f"{EAGLE}/config.json"]
    world.repository[f"{EAGLE}/config.json"] = config[::-1]
    with pytest.raises(CheckpointError, match=r"config\.json"):
        world.get([EAGLE])
    assert world.here() == {}


def test_folders_put_there_by_hand_are_compared_not_fetched(world: World) -> None:
    for name, data in world.expected(EAGLE).items():
        (world.models / name).parent.mkdir(parents=True, exist_ok=True)
        (world.models / name).write_bytes(data)
    world.get([EAGLE])
    assert not world.hubs.fetched() - set(world.hubs.questions)
    assert EAGLE in json.loads((world.models / "downloads.json").read_text())["folders"]


def test_official_repositories_need_a_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hubs.gated = {OFFICIAL}
    with raises(MissingError, OFFICIAL, "HF_TOKEN"):
        world.get([TARGET, EAGLE], official=True)
    assert world.here() == world.expected(EAGLE)
    monkeypatch.setenv("HF_TOKEN", "good")
    world.get([TARGET, EAGLE], official=True)
    assert world.here() == world.expected(EAGLE, TARGET)  # safetensors only, though it has both


def test_offline_says_what_is_missing_and_what_is_here_still_counts(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.get([EAGLE])
    world.hubs.down = True
    world.get([EAGLE])
    with raises(MissingError, "Prism-AE", HASS):
        world.get([EAGLE, HASS])
    assert "WARNING" not in capfd.readouterr().err  # the clients' own lines would stand beside the one message


def test_a_repository_that_lacks_a_folder_gives_the_others(world: World) -> None:
    del world.repository[WEIGHTS]
    with raises(MissingError, EAGLE, "Prism-AE"):
        world.get()
    assert world.here() == world.expected(TARGET, HASS)


def test_too_small_a_disk_is_said_before_anything_is_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(world.models.parent)
    monkeypatch.setattr(prism_ae.hub.download.shutil, "disk_usage", lambda path: real._replace(free=1 << 30))
    with raises(StoreError, world.models, "GB"):
        world.get()
    assert not world.hubs.fetched()
    assert world.here() == {}


def test_what_is_staged_already_needs_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hubs.faults[WEIGHTS] = [404] * 50
    with pytest.raises(MissingError):
        world.get([EAGLE])
    left = len(world.expected(EAGLE)[WEIGHTS])
    real = shutil.disk_usage(world.models)
    for free, fits in ((left - 5_000, False), (left + 100, True)):  # the clients keep small notes there
        free += prism_ae.hub.download.MARGIN
        monkeypatch.setattr(
            prism_ae.hub.download.shutil, "disk_usage", lambda path, free=free: real._replace(free=free)
        )
        world.hubs.faults.clear()
        if fits:
            world.get([EAGLE])
        else:
            with raises(StoreError, world.models, "GB"):
                world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


@pytest.mark.parametrize(
    "text",
    ["<html>log in</html>", "[]", '{"siblings": [{"rfilename": 3, "size": "x"}]}', '{"Data": [{"Path": [1]}]}', ""],
)
def test_a_portal_that_answers_in_the_hubs_place_is_noticed(world: World, text: str) -> None:
    world.hubs.portal = text
    with pytest.raises(PrismError, match="Akem"):
        world.get([EAGLE])
    assert world.here() == {}


def test_a_disk_that_fills_up_is_said_and_can_be_continued(world: World) -> None:
    """A limit on the size of files stands for the full disk: the write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with raises(StoreError, "model.safetensors"):
            world.get([EAGLE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert world.here() == {}
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


def test_a_full_disk_is_what_is_said_whatever_else_failed(world: World) -> None:
    del world.repository[WEIGHTS]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with raises(StoreError, "File too large"):
            world.get([EAGLE, HASS])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_somebody_else_left_in_the_staging_folder_is_not_published(world: World) -> None:
    ready = world.models / ".staging/ready" / EAGLE
    ready.mkdir(parents=True)
    (ready / "extra.py").write_text("1 / 0")
    (ready / "config.json").write_bytes(bytes(len(world.repository[f"{EAGLE}/config.json"])))
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)


def test_a_folder_that_cannot_be_written_is_said(world: World) -> None:
    world.models.write_bytes(b"a file")
    with raises(StoreError, world.models):
        world.get()


def test_a_dry_run_fetches_nothing(world: World) -> None:
    world.get(dry_run=True)
    assert not world.hubs.fetched()
    assert world.said[0].size > 0
    assert len(world.said[0].questions) == 6


def test_a_question_file_that_is_another_is_refused(world: World) -> None:
    world.hubs.faults["sum/question.jsonl"] = ["corrupt"]
    with raises(CheckpointError, "sum/question.jsonl", "sha256"):
        world.get([EAGLE])
    assert not (world.models / "benchmarks/sum/question.jsonl").exists()
    assert world.here() == world.expected(EAGLE)


def test_a_damaged_manifest_is_said(world: World) -> None:
    world.get([EAGLE])
    path = world.models / "downloads.json"
    for text in (
        "{",
        "[]",
        '{"folders": {"../x": {}}}',
        path.read_text().replace('"size": ', '"size": "').replace(",", '",'),
    ):
        path.write_text(text)
        with raises(CheckpointError, path):
            world.get([EAGLE])


def test_a_suite_without_a_hub_is_refused(tmp_path: Path) -> None:
    with raises(UsageError, "mini"):
        prism_ae.hub.download.download(load_suite("mini"), tmp_path / "models", [])
    assert os.listdir(tmp_path) == []


def test_several_failures_are_one_message(world: World) -> None:
    world.hubs.faults[WEIGHTS] = [404] * 50
    world.hubs.faults[f"{HASS}/config.json"] = [404] * 50
    with pytest.raises(PrismError) as raised:
        world.get()
    assert WEIGHTS in raised.value.what
    assert f"{HASS}/config.json" in raised.value.what
