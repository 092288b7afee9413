"""The Python of README.md and docs/usage.md runs: every block, in order, as one program beside the faces."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from igrpo_sdk import IdentityPipeline, QwenRefiner

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the blocks take as given.
GIVEN = {"references": ["ann.png", "bob.png"], "prompt": "Two people talk."}


def roomy(model: Path, folder: Path) -> Path:
    """A copy of a model directory that takes prompts of the length that the shipped one takes."""
    shutil.copytree(model, folder)
    preset = folder / "igrpo_preset.json"
    preset.write_text(json.dumps(json.loads(preset.read_text("utf-8")) | {"max_text_tokens": 512}), "utf-8")
    return folder


def load_instead(
    real: Any, small: Path, named: tuple[str, ...], own: dict[str, dict[str, Any]], name: str, **options: Any
) -> Any:
    """`from_pretrained` that loads a small model in place of each that is `named`."""
    return real(str(small), **own.get(name, {}), **options) if name in named else real(name, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")  # a random model draws no people
def test_the_blocks_run(
    root: Path, tiny_directory: Path, qwen_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights of the same classes under the names that the documents give."""
    from lora import make_adapter

    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "examples" / "faces", "examples/faces")
    for name in GIVEN["references"]:
        shutil.copy(root / "examples" / "faces" / name, name)
    model = roomy(tiny_directory, tmp_path / "model")
    plain = IdentityPipeline.from_pretrained(str(model))
    for adapter in ("path/to/adapter", "another/adapter"):
        Path(adapter).parent.mkdir(parents=True)
        make_adapter(plain, Path(adapter))

    # An adapter says its base by the name of a preset or a repository, and here there is neither:
    # tests/test_adapters.py has an adapter that brings its base.
    own: dict[str, dict[str, Any]] = {"path/to/adapter": {"adapter": "path/to/adapter"}}
    for owner, small, named in (
        (IdentityPipeline, model, ("tiny-vace", "path/to/adapter")),
        (QwenRefiner, qwen_directory, ("Qwen/Qwen2.5-VL-7B-Instruct",)),
    ):
        load = partial(load_instead, owner.from_pretrained, small, named, own)
        monkeypatch.setattr(owner, "from_pretrained", load)

    monkeypatch.setenv("GOMP_SPINCOUNT", "4000")  # what a block sets, so that it sets nothing here
    variables: dict[str, Any] = dict(GIVEN)
    for name, least in (("README.md", 1), ("docs/usage.md", 7)):
        text = (root / name).read_text("utf-8")
        blocks = list(BLOCK.finditer(text))
        assert len(blocks) == text.count("```python") >= least
        for block in blocks:
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block[1], name, "exec"), variables)  # errors name the document's line
    for written in ("talk.mp4", "out.html"):
        assert Path(written).stat().st_size > 0
    assert [person.name for person in variables["report"].people] == GIVEN["references"]
