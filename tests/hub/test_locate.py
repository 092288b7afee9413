"""What a name stands for, and repositories from the cache of the Hub's client: there is no network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from igrpo_sdk.adapters.use import resolve_model
from igrpo_sdk.backbones.loading import resolve
from igrpo_sdk.config import ASSETS, Preset, preset_names
from igrpo_sdk.errors import HubError, InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, fetch, hub_error, locate, locate_model
from igrpo_sdk.pipeline import IdentityPipeline

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Path], None]:
    """A function (repository, revision, directory) that puts a revision into the cache; the last is main."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(repository: str, revision: str, directory: Path) -> None:
        folder = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        shutil.copytree(directory, folder / "snapshots" / revision)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(revision)

    return put


# ---- names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("me/faces", Repository("me/faces")),
        ("me/faces@v1.0", Repository("me/faces", "v1.0")),
        ("me/faces@refs/pr/1", Repository("me/faces", "refs/pr/1")),
        *[
            (text, None)
            for text in ("", "me", "me/", "/me", "a/b/c", "me/faces@", "@x", "a b/c", "../x", "a/b@ ")
        ],
    ],
)
def test_the_name_of_a_repository(text: str, found: Repository | None) -> None:
    assert Repository.of(text) == found == locate(text)
    assert found is None or str(found) == text


def test_what_is_here_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("me/faces") == Repository("me/faces")
    (tmp_path / "me" / "faces").mkdir(parents=True)
    assert locate("me/faces") == Path("me/faces")
    assert locate("me/faces@main") == Repository("me/faces", "main")
    (tmp_path / "file").write_text("")
    assert locate("file") == Path("file")
    assert locate(Path("you/faces")) is None  # a path is never a repository


def test_a_preset_is_one_only_where_it_can_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = preset_names()[0]
    assert locate_model(name) == Preset.load(name)
    assert locate(name) is None and locate_model(Path(name)) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert locate_model(name) == Preset.load(name)
    assert locate(name) == Path(name)


@pytest.mark.parametrize("name", [None, 3, "nothing here", "a\0b", "x" * 5000, "\ud800"])
def test_a_name_that_is_nothing(name: str) -> None:
    assert locate(name, "main") is None is locate_model(name, "main")


def test_a_revision_is_of_a_repository(tmp_path: Path) -> None:
    assert locate("me/faces", "v1") == locate("me/faces@v1") == locate("me/faces@v1", "v1")
    with pytest.raises(InputError, match=r"revision: 'v2', but 'me/faces@v1' names 'v1'; leave it out"):
        locate("me/faces@v1", "v2")
    for name in (tmp_path, str(tmp_path)):
        with pytest.raises(InputError, match=r"revision: 'v1', but '.*' is on this machine and has none"):
            locate(name, "v1")
    with pytest.raises(InputError, match=r"'tiny-vace' is on this machine"):
        resolve("tiny-vace", "v1")
    source, revision, preset = resolve("vace-1.3b", "v1")
    assert preset is not None and (source, revision) == (preset.repo_id, "v1")


def test_presets_of_published_models_pin_a_commit_or_say_that_none_is_known() -> None:
    for name in preset_names():
        content = json.loads((ASSETS / "presets" / f"{name}.json").read_text("utf-8"))
        if "repo_id" not in content:
            continue
        revision = content["revision"]
        assert re.fullmatch("[0-9a-f]{40}", revision) if revision else "no revision" in content["description"]


def test_nothing_else_imports_the_hubs_client(root: Path) -> None:
    files = [path for folder in ("igrpo_sdk", "training") for path in (root / folder).rglob("*.py")]
    importing = {
        path.parent.name for path in files if re.search(r"(from|import) huggingface_hub", path.read_text())
    }
    assert importing == {"hub"}


# ---- getting


def test_only_what_is_asked_for_at_the_revision(
    cached: Callable[[str, str, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(HubError, match=r"thing me/faces: .* Check the name, the network, or log in"):
        fetch(Repository("me/faces"), ["a.json"], "thing")
    for revision in (FIRST, SECOND):
        (tmp_path / revision).mkdir()
        (tmp_path / revision / "a.json").write_text(revision)
        cached("me/faces", revision, tmp_path / revision)
    for asked, found in ((None, SECOND), ("main", SECOND), (FIRST, FIRST)):
        assert (fetch(Repository("me/faces", asked), ["a.json"], "thing") / "a.json").read_text() == found
    with pytest.raises(HubError, match="thing me/faces@v9: "):
        fetch(Repository("me/faces", "v9"), ["a.json"], "thing")


def test_an_error_of_the_hub_is_one_line_that_names_the_thing() -> None:
    error = hub_error(Repository("me/faces", "v1"), OSError("first\n second" + "x" * 999), "adapter")
    assert str(error).startswith("adapter me/faces@v1: first second") and len(str(error)) < 400


def test_a_model_of_a_revision(cached: Callable[[str, str, Path], None], tiny_directory: Path) -> None:
    cached("me/model", FIRST, tiny_directory)
    for name, revision in (("me/model", None), ("me/model", FIRST), (f"me/model@{FIRST}", None)):
        preset = IdentityPipeline.from_pretrained(name, device="cpu", revision=revision).preset
        assert (preset.name, preset.revision) == ("me/model", revision or name.partition("@")[2] or None)
    with pytest.raises(HubError, match="model me/model"):
        IdentityPipeline.from_pretrained("me/model", device="cpu", revision=SECOND)


def test_an_adapter_of_a_revision_stays_the_models_own(
    cached: Callable[[str, str, Path], None], tmp_path: Path
) -> None:
    """Its base is what `igrpo.json` says, and what is loaded later as "default" is the same revision."""
    info = {"schema": 1, "base_model": "Wan-AI/base", "base_revision": "b", "reference_order": "reversed"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "igrpo.json").write_text(json.dumps(info))
    cached("me/faces", FIRST, tmp_path / "adapter")
    assert resolve_model("me/faces", FIRST) == ("Wan-AI/base", "b", None, f"me/faces@{FIRST}")
    assert resolve_model("me/faces") == ("Wan-AI/base", "b", None, "me/faces")
    assert resolve_model("me/none") == ("me/none", None, None, None)
    (tmp_path / "adapter" / "igrpo.json").write_text("{")
    cached("me/faces", SECOND, tmp_path / "adapter")
    with pytest.raises(WeightsError, match=r"igrpo\.json is not usable"):
        resolve_model("me/faces")
