"""The smoke recipes end to end: train, resume to the same bits, hand on to the next stage."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanVACEPipeline, WanVACETransformer3DModel
from PIL import Image

from igrpo_sdk.backbones.loading import PRESET_FILE
from igrpo_sdk.config import Geometry, Preset
from igrpo_sdk.errors import InputError, NumericsError, ResourceError, WeightsError
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.training.commands import train_world
from igrpo_sdk.training.common import checkpoint
from igrpo_sdk.training.common.recipe import build, read_recipe
from igrpo_sdk.training.pretrain.clips import CLIP
from igrpo_sdk.training.pretrain.flow import FlowRecipe, FlowTask
from igrpo_sdk.training.pretrain.latents import Batch, Encoder
from igrpo_sdk.training.pretrain.noising import model_input
from igrpo_sdk.training.pretrain.readout import CHANNELS, PERSON, Truth


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with finished smoke runs, each in the folder of its name in `RECIPES`."""
    root = tmp_path_factory.mktemp("runs")
    for name, recipe in RECIPES.items():
        train_world(recipe, set=inputs(name, root), output=str(root / name), device="cpu")
    return root


RECIPES = {
    "likeness": "tiny_likeness_smoke", "vae": "tiny_vae_smoke", "faces": "tiny_vae_faces_smoke",
    "text": "tiny_text_smoke", "stills": "tiny_flow_stills_smoke", "flow": "tiny_flow_smoke",
    "fine": "tiny_flow_fine_smoke", "guided": "tiny_flow_guided_smoke",
}  # fmt: skip


def inputs(name: str, root: Path) -> list[str]:
    vae, text, stills, flow = root / "vae" / "vae", root / "text", root / "stills", root / "flow"
    return {
        "faces": [f"init_from={vae}", f"likeness={root / 'likeness'}"],
        "stills": [f"vae={vae}", f"text={text}"],
        "flow": [f"vae={vae}", f"text={stills}", f"init_from={stills}"],
        "fine": [f"vae={root / 'faces' / 'vae'}", f"text={flow}", f"init_from={flow}"],
        "guided": [f"vae={root / 'faces' / 'vae'}", *(f"{k}={root / 'fine'}" for k in ("text", "init_from"))],
    }.get(name, [])


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def newest(output: Path) -> checkpoint.Checkpoint:
    found = checkpoint.find(output / "checkpoints", "auto")
    assert found is not None
    return found


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("name", RECIPES)
def test_resumed_run_has_the_same_bits(runs: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    killed = checkpoint.list_checkpoints(runs / name / "checkpoints")[
        0
    ]  # as if the run had died after this one
    last = newest(runs / name).step
    assert 0 < checkpoint.load(killed).step < last
    shutil.copytree(killed, output / "checkpoints" / killed.name)
    train_world(RECIPES[name], set=inputs(name, runs), output=str(output), resume="auto", device="cpu")
    straight, resumed = newest(runs / name), newest(output)
    assert straight.step == resumed.step == last
    for part in ("model", "average", "optimizer"):
        assert_same(straight.parts[part], resumed.parts[part])


def test_resuming_where_clips_replace_crops(tmp_path: Path) -> None:
    """Step 4 is the first past 0.6 of six steps, but its batch is drawn while step 3 runs, before that."""
    changed, output = ["batch.whole_from=0.6"], tmp_path / "resumed"
    train_world("tiny_vae_smoke", set=changed, output=str(tmp_path / "straight"), device="cpu")
    (killed,) = (
        path
        for path in checkpoint.list_checkpoints(tmp_path / "straight" / "checkpoints")
        if path.name[-1] == "4"
    )
    shutil.copytree(killed, output / "checkpoints" / killed.name)
    train_world("tiny_vae_smoke", set=changed, output=str(output), resume="auto", device="cpu")
    assert_same(newest(tmp_path / "straight").parts["model"], newest(output).parts["model"])


def test_a_checkpoint_of_another_recipe_is_refused(runs: Path, tmp_path: Path) -> None:
    path = newest(runs / "vae").path
    for other, change in (("tiny_text_smoke", []), ("tiny_vae_smoke", ["model.base_dim=16"])):
        with pytest.raises(WeightsError, match="does not fit this recipe"):
            train_world(other, set=change, output=str(tmp_path), resume=str(path), device="cpu")


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ("tiny_vae_smoke", "init_from=no/where"),
        ("tiny_flow_smoke", "vae=no/where"),
        ("tiny_flow_smoke", "text=no/where"),
        ("tiny_assemble", "flow=no/where"),
    ],
)
def test_what_an_earlier_run_writes_is_missing(
    runs: Path, tmp_path: Path, recipe: str, override: str
) -> None:
    """Never looked for on the Hub, where `no/where` could be the name of a repository."""
    known = [] if recipe == "tiny_vae_smoke" else inputs("flow", runs)
    known = known[:1] if recipe == "tiny_assemble" else known
    with pytest.raises(WeightsError, match="no/where is missing: first run"):
        train_world(recipe, set=[*known, override], output=str(tmp_path / "out"))


def test_vae_is_scaled_and_loads(runs: Path) -> None:
    vae = AutoencoderKLWan.from_pretrained(runs / "vae" / "vae", dtype=torch.float32)
    assert len(vae.config.latents_mean) == vae.config.z_dim == len(vae.config.latents_std)
    assert min(vae.config.latents_std) > 0
    assert vae.config.latents_std != [1.0] * vae.config.z_dim


def test_numbers_are_logged(runs: Path) -> None:
    last = rows(runs / "vae")[-1]
    assert last["event"] == "validation"
    assert last["finished"]
    assert last["psnr_video"] > 0
    assert last["psnr_still"] > 0
    assert {"who", "action", "background", "light"} <= rows(runs / "text")[-1].keys()
    assert {"loss", "video", "head", "readout"} <= rows(runs / "flow")[-1].keys()
    assert "likeness" in rows(runs / "faces")[-1]
    assert "identity" not in rows(runs / "guided")[-1]
    assert Image.open(runs / "flow" / "samples.png").size == (9 * 48, 2 * 2 * 48)


def test_a_loss_that_is_not_finite_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match="nothing was saved"):
        train_world(
            "tiny_vae_smoke",
            set=["loss.detail=1e38", "loss.head=1e38", "every.checkpoint=1"],
            output=str(tmp_path),
            device="cpu",
        )
    assert not (tmp_path / "checkpoints").exists()


def test_init_from_takes_the_weights(runs: Path, tmp_path: Path) -> None:
    weights = runs / "vae" / "vae"
    train_world(
        "tiny_vae_smoke",
        set=[f"init_from={weights}", "optimisation.learning_rate=0", "budget.steps=1"],
        output=str(tmp_path),
        device="cpu",
    )
    expected = AutoencoderKLWan.from_pretrained(weights, dtype=torch.float32).state_dict()
    actual = AutoencoderKLWan.from_pretrained(tmp_path / "vae", dtype=torch.float32).state_dict()
    assert_same(dict(expected), dict(actual))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["unknown=1"], "recipe.unknown is unknown"),
        (["model.unknown=1"], "recipe.model.unknown is unknown"),
        (["budget.steps=many"], "budget.steps='many' must be of type int"),
        (["budget.steps=0"], "steps >= 1"),
        (["budget.max_seconds=0"], "must be positive"),
        (["batch=[1"], "no YAML value"),
        (["kind=[vae]"], "must have a 'kind'"),
        (["optimisation.learning_rate=-1"], "learning_rate >= 0"),
        (["optimisation.average=1"], "average < 1"),
        (["optimisation.method=muon"], "for the transformer"),
        (["pool.refresh_every=0"], "at least one of everything"),
        (["batch.clips=0"], "at least one of everything"),
        (["batch.crop=64"], "batch.crop, crop_frames: height"),
        (["batch.crop=15"], "does not divide by 4"),
        (["batch.crop_frames=9"], "batch.crop, crop_frames: num_frames"),
        (["clip.num_frames=6"], "clip: num_frames"),
        (["stats_clips=0"], "stats_clips=0"),
        (["loss.features=1"], "need likeness"),
        (["loss.identity=-1"], "weights of at least 0"),
        (["budget"], "must look like"),
        (["model.temperal_downsample=[true]"], "temperal_downsample"),
        (["optimisation.method=sgd"], "must be one of"),
        (["kind=music"], "kind 'music'"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_world("tiny_vae_smoke", set=overrides, output=str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch=0"], "batch and held_out"),
        (["held_out=0"], "batch and held_out"),
        (["readout.blocks=[-1]"], "numbers of blocks"),
        (["readout.blocks=[]"], "numbers of blocks"),
        (["loss.drop_text=-0.1"], "drop_text"),
        (["latents.odds=[1.5, -0.5]"], "odds"),
        (["latents.renew_every=-1"], "renew_every not negative"),
        (["guided=4.0"], "guided needs init_from"),
    ],
)
def test_bad_recipes_of_the_transformer_are_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_world("tiny_flow_smoke", set=overrides, output=str(tmp_path), device="cpu")


def test_a_readout_needs_blocks_that_are_there(runs: Path, tmp_path: Path) -> None:
    wrong = [*inputs("flow", runs), "readout.blocks=[0, 2]"]
    with pytest.raises(InputError, match=r"readout\.blocks=\(0, 2\): the transformer has 2 blocks"):
        train_world("tiny_flow_smoke", set=wrong, output=str(tmp_path), device="cpu")


@pytest.mark.parametrize("content", [b"kind: vae\n seed: [", b"\xff\xfe\xff", b"- vae", b"kind: [vae]"])
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        train_world(str(file), output=str(tmp_path))


def test_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny_vae"):
        train_world("no_such_recipe", output=str(tmp_path))


def test_assembled_parts_are_a_stock_pipeline(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "pipeline"
    parts = [f"vae={runs / 'vae' / 'vae'}", f"flow={runs / 'flow'}", f"runs={runs}"]
    train_world("tiny_assemble", set=parts, output=str(output))
    pipe = WanVACEPipeline.from_pretrained(output, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        prompt="Two people talk.",
        reference_images=[Image.new("RGB", (48, 48), colour) for colour in ("red", "green")],
        height=48,
        width=48,
        num_frames=5,
        num_inference_steps=2,
        max_sequence_length=128,
        output_type="np",
    ).frames
    assert frames.shape == (1, 5, 48, 48, 3)
    assert max(file.stat().st_size for file in output.rglob("*") if file.is_file()) < 14e6
    assert IdentityPipeline.from_pretrained(output, device="cpu").preset.geometry == CLIP
    assert "trained for 6 steps" in (output / "README.md").read_text("utf-8")
    preset = Preset.load("tiny-vace")
    with monkeypatch.context() as patch:
        patch.setattr(Preset, "load", lambda _: replace(preset, adapter="someone/aligned"))
        train_world("tiny_assemble", set=parts, output=str(output))
    assert Preset.read(output / PRESET_FILE).adapter is None  # it is for other weights
    with pytest.raises(ResourceError, match="max_mib"):
        train_world("tiny_assemble", set=[*parts, "max_mib=0.01"], output=str(output))
    with pytest.raises(WeightsError, match="missing"):
        train_world("tiny_assemble", set=["vae=nowhere", f"flow={runs / 'flow'}"], output=str(output))


@torch.no_grad()
def test_training_sees_what_the_stock_pipeline_makes(runs: Path) -> None:
    """x0 and control of two references equal those of WanVACEPipeline's own preparation, slot by slot."""
    vae = AutoencoderKLWan.from_pretrained(runs / "vae" / "vae", dtype=torch.float32)
    transformer = WanVACETransformer3DModel.from_pretrained(
        runs / "flow" / "transformer", dtype=torch.float32
    )
    pipe = WanVACEPipeline(None, None, vae, None, transformer)
    pictures = [Image.new("RGB", (48, 48), colour) for colour in ("red", "blue")]
    video, mask, prepared = pipe.preprocess_conditions(
        None, None, pictures, 1, 48, 48, 5, torch.float32, "cpu"
    )
    latents = pipe.prepare_video_latents(video, mask, prepared, None, torch.device("cpu"))
    stock = torch.cat([latents, pipe.prepare_masks(mask, prepared)], dim=1)
    encoder = Encoder(vae, torch.device("cpu"), half=False)
    references = torch.cat([encoder.encode(picture[None, :, None]) for picture in prepared[0]])[:, :, 0]
    grey = encoder.grey(Geometry(48, 48, 5))
    sizes = ((PERSON,), (2, len(CHANNELS)), (2, 4), (2,))
    facts = Truth(*(torch.zeros(1, 2, *size) for size in sizes), known=torch.ones(1))
    batch = Batch(torch.randn_like(grey), references[None], grey[:, 0], torch.zeros(1, 128), facts)
    x0, control = model_input(batch, grey, transformer.config.vace_in_channels)
    assert torch.allclose(control, stock, atol=1e-5)
    assert torch.equal(x0[:, :, :2], control[:, : vae.config.z_dim, :2])
    assert torch.equal(x0[:, :, 2:], batch.video)


def test_a_distillation_starts_at_what_guidance_of_one_would_give(runs: Path) -> None:
    """At scale 1 the target is the teacher's own velocity: nothing is left to learn. At 4 something is."""
    losses = {}
    for scale in (1.0, 4.0):
        data = read_recipe("tiny_flow_guided_smoke", [*inputs("guided", runs), f"guided={scale}"])
        del data["kind"]
        task = FlowTask(build(FlowRecipe, data), torch.device("cpu"))
        losses[scale] = float(task.loss(task.draw(0, 0.0))[0].detach())
    assert losses[1.0] < 1e-9
    assert losses[4.0] > 10 * losses[1.0]


def test_renewed_clips_depend_on_the_number_of_renewals_only(runs: Path) -> None:
    data = read_recipe("tiny_flow_fine_smoke", inputs("fine", runs))
    del data["kind"]
    task = FlowTask(build(FlowRecipe, data), torch.device("cpu"))
    pool = task.pools[2]
    first = pool.sample(8, "any").video
    pool.renew(1)
    pool.renew(2)
    slowly = pool.sample(8, "any").video
    pool.renew(1)
    pool.renew(2)
    assert torch.equal(pool.sample(8, "any").video, slowly)
    assert not torch.equal(slowly, first)
    pool.renew(0)
    assert torch.equal(pool.sample(8, "any").video, first)
