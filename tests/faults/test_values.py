"""Values that a recipe, a file of rows or a picture says, and that nobody can mean, are refused by name."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from igrpo_sdk import IdentityReport, InputError, Reference, WeightsError
from igrpo_sdk.identity.packs import read_settings
from igrpo_sdk.training.common import checkpoint
from igrpo_sdk.training.common.recipe import build, read_mapping
from igrpo_sdk.training.data.rows import read_cases
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.pretrain.flow import FlowRecipe
from igrpo_sdk.training.pretrain.text import TextRecipe
from igrpo_sdk.training.pretrain.vae import VaeRecipe

POLICY = "tiny_vace"


@pytest.mark.parametrize(
    "override",
    [
        *("update.learning_rate=.inf", "update.learning_rate=.nan", "update.weight_decay=.inf"),
        *("update.clip_norm=.inf", "update.average=.nan", "update.beta2=1e999", "update.groups=1000000000"),
        *("advantage.std_floor=.inf", "advantage.clip=inf", "objective.clip=.nan", "objective.kl=-.inf"),
        *("max_seconds=.nan", "max_seconds=-1", "max_seconds=0", "max_seconds=.inf"),
        *("alarm.drop=.nan", "alarm.drop=.inf", "rollout.members=1000000000", "rollout.level=.inf"),
        *("seed=-5", "seed=4294967296", "evaluation.seed=-1", "evaluation.count=1000000000"),
        *("prompts.workers=1000000000", "steps=10000000000000", "rewards.motion.floor=.nan"),
        *("rewards.faces.weight=.inf", "lora.alpha=.nan", "lora.rank=10000000", f"lora.alpha=1{'0' * 400}"),
        *("rewards.scoring.timeout=.inf", "checkpoint_every=99999999999999", "window.last=99999999999999"),
    ],
)
def test_numbers_of_an_alignment_that_nobody_means(override: str) -> None:
    key = override.partition("=")[0].rpartition(".")[2]
    with pytest.raises(InputError, match=key) as caught:
        read_policy_recipe(POLICY, [override])
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("recipe", "kind"), [("tiny_vae", VaeRecipe), ("tiny_text", TextRecipe), ("tiny_flow", FlowRecipe)]
)
@pytest.mark.parametrize(
    "override",
    [
        *("optimisation.learning_rate=.inf", "optimisation.weight_decay=.inf", "optimisation.clip_norm=.inf"),
        *("optimisation.average=.nan", "budget.max_seconds=.nan", "budget.max_seconds=-1"),
        *("budget.call_seconds=.inf", "budget.floor=.nan", "budget.warmup=.nan", "seed=-5"),
    ],
)
def test_numbers_of_a_training_that_nobody_means(recipe: str, kind: type[Any], override: str) -> None:
    data = read_mapping(recipe, [override])
    data.pop("kind")
    with pytest.raises(InputError, match=override.partition("=")[0].rpartition(".")[2]):
        build(kind, data)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm", "average", "beta2"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_the_dataclass_itself_refuses_them(name: str, value: float) -> None:
    recipe = read_policy_recipe(POLICY)
    with pytest.raises(InputError, match=f"update.{name}: (inf|nan); use a finite number"):
        type(recipe.update)(**{name: value})
    assert isinstance(recipe, PolicyRecipe)


LAUGHS = "{a: &a [x,x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]}"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"seed={LAUGHS}", "anchors"),
        (f"seed={'[' * 1000}", "nested deeper"),
        (f"seed={'9' * 5000}", "no YAML value"),
        ("seed=2001-13-45", "no YAML value"),
        (f"seed={'x' * 50_000}", "must be of type int"),
        (f"{'x' * 50_000}=1", "is unknown"),
        ("x" * 50_000, "must look like"),
        ("seed.x=1", "is a value, not a group"),
        ("update={1: 2}", "update.1 is unknown"),
        ("update={learning_rate: {}}", "must be of type float"),
    ],
)
def test_overrides_that_nobody_means(override: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_policy_recipe(POLICY, [override])
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "a\0.yaml", "..", ".yaml"])
def test_recipes_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        read_mapping(name)
    assert len(str(caught.value)) < 900


# ---- rows


def write_row(path: Path, row: object, mark: bytes = b"") -> Path:
    """A file of one row, with a picture beside it."""
    Image.new("RGB", (64, 64)).save(path.with_name("a.png"))
    text = row if isinstance(row, str) else json.dumps(row)
    path.write_bytes(mark + text.encode())
    return path


def test_rows_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    row = {"references": ["a.png"], "prompt": "A person waves."}
    path = write_row(tmp_path / "rows.jsonl", row, b"\xef\xbb\xbf")
    assert read_cases(path)[0].prompt == "A person waves."


@pytest.mark.parametrize(
    "row",
    [
        *("[" * 10**5, "9" * 5000, '{"references": [], "references": []}', "\x00"),
        {"references": ["x" * 5000], "prompt": "A person waves."},
        {"references": ["a\0.png"], "prompt": "A person waves."},
        {"references": [["a.png"] * 9999], "prompt": "A person waves."},
        {"references": ["a.png"], "prompt": "A person waves.", "seed": 10**25},
        {"references": ["a.png"], "prompt": "A person waves.", "id": "x" * 9999},
        {"references": ["a.png"], "prompt": "A person waves.", "part": {"a": ["x" * 9999]}},
        {"references": ["a.png"], "prompt": "A person waves.", "places": [{}]},
        {"references": ["a.png"], "prompt": "A person waves.", "places": ["x" * 9999]},
    ],
    ids=range(12),
)
def test_rows_that_nobody_means(row: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl', line 1: ") as caught:
        read_cases(write_row(tmp_path / "rows.jsonl", row))
    assert len(str(caught.value)) < 400


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe{\0")
    with pytest.raises(InputError, match="byte 0 is not UTF-8"):
        read_cases(path)
    for name in ("none", "x" * 5000, "a\0"):
        with pytest.raises(InputError, match="there is no such file"):
            read_cases(tmp_path / name)


# ---- files of runs and of packs


@pytest.mark.parametrize(
    "manifest",
    [
        *("[" * 10**5, "9" * 5000, "[]", "{}", '{"step": 1e999, "sha256": {}}', '{"step": [], "sha256": {}}'),
        f'{{"step": 1{"0" * 400}, "sha256": {{}}}}',
        json.dumps({"step": 1, "sha256": {"x" * 5000 + ".pt": ""}}),
        json.dumps({"step": 1, "sha256": {"a\0.pt": ""}}),
        json.dumps({"step": 1, "sha256": {"empty.pt": hashlib.sha256(b"").hexdigest()}}),
    ],
    ids=range(10),
)
def test_a_damaged_manifest_is_passed_over(manifest: str, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "manifest.json").write_text(manifest, "utf-8")
    with pytest.raises(WeightsError, match="checkpoint"):
        checkpoint.load(folder)
    with pytest.warns(UserWarning, match="DAMAGED CHECKPOINT PASSED OVER"):
        assert checkpoint.find(tmp_path, "auto") is None


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "9" * 5000, "[]", f'{{"same_person_threshold": 1{"0" * 400}}}', "\ufeff", "{"]
)
def test_a_damaged_pack_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text(text, "utf-8")
    with pytest.raises(WeightsError, match=r"pack\.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 5000, "[]", "null", '{"schema": 1, "schema": 1}'])
def test_a_damaged_report_is_told(text: str) -> None:
    with pytest.raises(InputError, match="report"):
        IdentityReport.from_json(text)


# ---- pictures


def png(size: int = 64) -> bytes:
    """A PNG file of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_data_address_is_decoded() -> None:
    address = "data:image/png;base64," + base64.b64encode(png()).decode()
    loaded = Reference.load(address)
    assert np.array_equal(loaded.image, Reference.load(png()).image)
    assert loaded.source is None


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("data:image/png;base64," + base64.b64encode(png(128)).decode()[:-7], "no base64"),
        ("data:image/png;base64," + "*" * 90_000, "no base64"),
        ("data:image/png," + "x" * 90_000, "only data:...;base64"),
        ("data:" + "x" * 90_000, "only data:...;base64"),
        ("data:;base64,", "the file is empty"),
        ("data:image/svg+xml;base64," + base64.b64encode(b"<svg " + b"x" * 90_000).decode(), "an SVG"),
        ("x" * 90_000, "File name too long"),
        ("http://" + "x" * 90_000, "addresses are not fetched"),
    ],
    ids=range(8),
)
def test_no_message_about_a_picture_is_long(address: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Reference.load(address)
    assert len(str(caught.value)) < 250


MATRIX = """
import numpy as np
from igrpo_sdk import Reference
for dtype in (float, np.float32, np.uint8):
    loaded = Reference.load(np.matrix(np.zeros((64, 64), dtype)))
    assert loaded.image.shape == (64, 64, 3)
"""


def test_a_matrix_does_not_abort_the_interpreter() -> None:
    subprocess.run([sys.executable, "-c", MATRIX], check=True, timeout=120)


def test_masked_pixels_are_told() -> None:
    pixels = np.ma.masked_array(np.zeros((64, 64, 3), np.uint8))
    assert Reference.load(pixels).image.shape == (64, 64, 3)
    pixels[3, 3] = np.ma.masked
    with pytest.raises(InputError, match="masked"):
        Reference.load(pixels)


def test_a_gif_that_was_cut_anywhere_is_a_picture_or_an_input_error() -> None:
    frames = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40), np.uint8)) for i in range(3)
    ]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    data = file.getvalue()
    for length in range(0, len(data), 7):
        try:
            assert Reference.load(data[:length]).image.shape == (40, 40, 3)
        except InputError as error:
            assert len(str(error)) < 200  # noqa: PT017 - either is an answer


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize(
    "value",
    [b"", b"x" * 300, 300, -1, "x", (1, 2), (300, 1, 1), None, [1], 1.5, float("nan"), 10**40, {}],
    ids=range(13),
)
def test_any_transparency_that_a_file_may_say(mode: str, value: Any) -> None:
    image = Image.new(mode, (40, 40))
    image.info["transparency"] = value
    assert Reference.load(image).image.shape == (40, 40, 3)
