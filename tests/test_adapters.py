"""Adapters: what is loaded is exactly what was trained, whatever the file calls it; nothing else loads."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import peft
import pytest
import torch
from lora import ALPHA, RANK, edited, make_adapter, randomise, says
from safetensors.torch import load_file, save_file
from tiny import TINY, people, tiny_pipeline, tiny_stock
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.info import INFO_FILE, AdapterInfo
from igrpo_sdk.adapters.lora import (
    OFFICIAL_TARGETS,
    Adapter,
    LoraSettings,
    add_adapter,
    remove_adapter,
    save_adapter,
)
from igrpo_sdk.adapters.read import WEIGHTS_FILE, read_adapter
from igrpo_sdk.backbones.switching import AdapterUse, adapter_disabled, adapter_parameters
from igrpo_sdk.config import Guidance
from igrpo_sdk.errors import HubError, InputError, NumericsError, ResourceError, WeightsError
from igrpo_sdk.provenance import weights_mark
from igrpo_sdk.sampling import draw_noise

PROMPT = "Two people talk."
NUM_MODULES = 8 * (3 + 2)  # attention of three blocks, and of VACE's two
Same = Callable[[], None]


@pytest.fixture(scope="module")
def shared() -> IdentityPipeline:
    return tiny_pipeline()


@pytest.fixture
def pipe(shared: IdentityPipeline) -> Iterator[IdentityPipeline]:
    """A pipeline that is the base before and after."""
    yield shared
    shared.unload_adapter()
    remove_adapter(shared.backbone.transformer)


@pytest.fixture(scope="module")
def base(shared: IdentityPipeline) -> Tensor:
    """What the base says."""
    return says(shared.backbone.transformer)


@pytest.fixture(scope="module")
def saved(shared: IdentityPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter in our format."""
    return make_adapter(shared, tmp_path_factory.mktemp("adapters") / "random")


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(scope="module")
def aligned(shared: IdentityPipeline, saved: Path) -> Tensor:
    """What the model says with it."""
    shared.load_adapter(saved)
    said = says(shared.backbone.transformer)
    shared.unload_adapter()
    return said


def peft_adapter(directory: Path, **settings: Any) -> tuple[Path, Tensor]:
    """A directory that PEFT wrote, and what its own PeftModel says."""
    targets = settings.pop("target_modules", list(OFFICIAL_TARGETS))
    config = peft.LoraConfig(**{"r": RANK, "lora_alpha": ALPHA, "target_modules": targets, **settings})
    model = peft.get_peft_model(tiny_stock().transformer, config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(directory)
    return directory, says(model.base_model.model)


# ---- what is loaded is what was trained


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_alpha": RANK},
        {"rank_pattern": {"to_q": 2, r"blocks\.1\.attn1\.to_v": 6}, "alpha_pattern": {"to_out.0": 3}},
        {"use_rslora": True},
        {"target_modules": r".*\.ffn\.net\.2|vace_blocks\.\d+\.proj_(in|out)|proj_out"},
        {"target_modules": ["to_q"], "layers_to_transform": [1], "layers_pattern": "blocks"},
    ],
)
def test_peft_says_the_same(
    pipe: IdentityPipeline, base: Tensor, tmp_path: Path, settings: dict[str, Any]
) -> None:
    directory, expected = peft_adapter(tmp_path / "peft", **settings)
    pipe.load_adapter(directory)
    said = says(pipe.backbone.transformer)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert (expected - base).abs().max() > 1e-2
    assert pipe.adapter is not None and pipe.adapter.name == "peft" and pipe.adapter.info is None
    assert not pipe.adapter.warnings


def test_what_was_saved_is_loaded_bit_for_bit(pipe: IdentityPipeline, base: Tensor, tmp_path: Path) -> None:
    transformer = pipe.backbone.transformer
    parameters = add_adapter(transformer, LoraSettings(RANK, ALPHA), 3)
    assert len(parameters) == 2 * NUM_MODULES
    assert torch.equal(says(transformer), base)
    randomise(transformer)
    trained = says(transformer)
    assert (trained - base).abs().max() > 1e-2
    path = save_adapter(tmp_path / "out", transformer, AdapterInfo.of(TINY, pipe.backbone))
    assert sorted(os.listdir(path)) == [INFO_FILE, WEIGHTS_FILE] and os.listdir(tmp_path) == ["out"]
    assert len({(path / name).stat().st_mode for name in os.listdir(path)}) == 1
    remove_adapter(transformer)
    assert torch.equal(says(transformer), base)
    pipe.load_adapter(path)
    assert torch.equal(says(transformer), trained)
    assert not transformer.training and not any(p.requires_grad for p in transformer.parameters())


def test_stock_diffusers_loads_what_was_saved(saved: Path, aligned: Tensor) -> None:
    stock = tiny_stock()
    stock.load_lora_weights(saved, weight_name=WEIGHTS_FILE)
    assert torch.equal(says(stock.transformer), aligned)


def test_a_file_of_stock_diffusers_is_loaded(pipe: IdentityPipeline, tmp_path: Path) -> None:
    stock = tiny_stock()
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_k"], init_lora_weights=False)
    stock.transformer.add_adapter(config)
    layers = peft.get_peft_model_state_dict(stock.transformer, adapter_name="default")
    metadata = stock.transformer.peft_config["default"].to_dict()
    stock.save_lora_weights(
        tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
    )
    pipe.load_adapter(tmp_path / WEIGHTS_FILE)
    assert torch.equal(says(pipe.backbone.transformer), says(stock.transformer))


def test_without_metadata_the_rank_is_alpha_and_the_video_says_so(
    pipe: IdentityPipeline, adapter: Path
) -> None:
    edited(adapter / WEIGHTS_FILE, adapter / WEIGHTS_FILE, lambda _, head: head.pop("lora_adapter_metadata"))
    stock = tiny_stock()
    stock.load_lora_weights(adapter, weight_name=WEIGHTS_FILE)
    pipe.load_adapter(adapter)
    assert torch.equal(says(pipe.backbone.transformer), says(stock.transformer))
    video = pipe(people(1), PROMPT, seed=1, steps=1)
    assert video.warnings == (
        "adapter copy: does not say its alpha; as in diffusers, the rank is taken for it",
    )


ORIGINAL = {"attn1": "self_attn", "attn2": "cross_attn", "to_q": "q", "to_k": "k", "to_v": "v"}


def original(key: str, down: str, up: str) -> str:
    """A tensor's name as ComfyUI and the original Wan have it."""
    parts = [ORIGINAL.get(part, part) for part in key.replace("to_out.0", "o").split(".")[1:]]
    name = ".".join(["diffusion_model", *parts])
    return name.replace("lora_A", down).replace("lora_B", up)


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_names_of_the_original_are_known(
    pipe: IdentityPipeline, adapter: Path, aligned: Tensor, names: tuple[str, str]
) -> None:
    def rename(tensors: dict[str, Tensor], head: dict[str, str]) -> None:
        head.clear()
        for key in list(tensors):
            name = original(key, *names)
            tensors[name] = tensors.pop(key)
            tensors[name.rpartition(".lora_")[0] + ".alpha"] = torch.tensor(ALPHA)

    file = edited(adapter / WEIGHTS_FILE, adapter / "comfy.safetensors", rename)
    assert any(".vace_blocks.1.cross_attn.o." in key for key in load_file(file))
    pipe.load_adapter(file)
    assert torch.equal(says(pipe.backbone.transformer), aligned)
    assert pipe.adapter is not None and pipe.adapter.name == "comfy" and not pipe.adapter.warnings


def test_other_modules_of_the_original() -> None:
    from igrpo_sdk.adapters.names import Key, parse_key

    for theirs, ours in (
        ("blocks.12.ffn.0", "blocks.12.ffn.net.0.proj"),
        ("vace_blocks.0.ffn.2", "vace_blocks.0.ffn.net.2"),
        ("vace_blocks.0.before_proj", "vace_blocks.0.proj_in"),
        ("vace_blocks.3.after_proj", "vace_blocks.3.proj_out"),
        ("blocks.3.cross_attn.k_img", "blocks.3.attn2.add_k_proj"),
        ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        ("time_projection.1", "condition_embedder.time_proj"),
        ("head.head", "proj_out"),
    ):
        key = parse_key("x", f"diffusion_model.{theirs}.lora_up.weight", "diffusion_model.", "original")
        assert key == Key(ours, "B")


def test_half_precision(pipe: IdentityPipeline, saved: Path, tmp_path: Path) -> None:
    """A bfloat16 model takes the adapter in bfloat16; the mark of its weights is that of float32."""
    pipe.to_diffusers().save_pretrained(tmp_path / "model")
    half = IdentityPipeline.from_pretrained(
        tmp_path / "model", adapter=saved, device="cpu", dtype=torch.bfloat16
    )
    parameters = adapter_parameters(half.backbone.transformer)
    assert {p.dtype for p in parameters.values()} == {torch.bfloat16} and len(parameters) == 2 * NUM_MODULES


# ---- what is refused


def spoil(key: str, change: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    """Change the first tensor whose name holds `key`, or remove it."""

    def edit(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        name = min(name for name in tensors if key in name)
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed.contiguous()

    return lambda folder: void(edited(folder / WEIGHTS_FILE, folder / WEIGHTS_FILE, edit))


def void(_: Any) -> None:
    """A lambda's value that nobody wants."""


def tensors_of(edit: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors."""
    return lambda folder: void(edited(folder / WEIGHTS_FILE, folder / WEIGHTS_FILE, lambda t, _: edit(t)))


def settings_of(**changes: Any) -> Callable[[Path], None]:
    """Change PEFT's settings in the head."""

    def edit(_: dict[str, Tensor], head: dict[str, str]) -> None:
        packed = json.loads(head["lora_adapter_metadata"])
        packed |= {f"transformer.{name}": value for name, value in changes.items()}
        head["lora_adapter_metadata"] = json.dumps(packed)

    return lambda folder: void(edited(folder / WEIGHTS_FILE, folder / WEIGHTS_FILE, edit))


def info_of(**changes: Any) -> Callable[[Path], None]:
    """Change igrpo.json."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / INFO_FILE).read_text("utf-8"))
        (folder / INFO_FILE).write_text(json.dumps(content | changes), "utf-8")

    return edit


def only_peft_weights(folder: Path) -> None:
    """PEFT's file without its settings."""
    tensors = load_file(folder / WEIGHTS_FILE)
    renamed = {f"base_model.model.{key.removeprefix('transformer.')}": t for key, t in tensors.items()}
    (folder / WEIGHTS_FILE).unlink()
    save_file(renamed, folder / "adapter_model.safetensors")


LARGE = "blocks.0.attn1.to_q"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (
        lambda folder: void((folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-9])),
        "is damaged",
    ),
    "huge header": (
        lambda folder: void((folder / WEIGHTS_FILE).write_bytes((2**40).to_bytes(8, "little") + b"{}")),
        "is damaged",
    ),
    "no file": (lambda folder: (folder / WEIGHTS_FILE).unlink(), f"holds no {WEIGHTS_FILE}"),
    "pickle only": (
        lambda folder: void((folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")),
        f"holds no {WEIGHTS_FILE}",
    ),
    "two files": (
        lambda folder: void(shutil.copy(folder / WEIGHTS_FILE, folder / "adapter_model.safetensors")),
        "give the path of one",
    ),
    "empty": (tensors_of(lambda tensors: tensors.clear()), "holds no tensors"),
    "strange names": (
        tensors_of(lambda t: t.update({f"lora_unet_{k}": t.pop(k) for k in list(t)})),
        "has no known name",
    ),
    "text encoder": (
        tensors_of(lambda t: t.update({"text_encoder.q.lora_A.weight": torch.zeros(1, 1)})),
        "besides transformer",
    ),
    "DoRA": (
        tensors_of(lambda t: t.update({f"transformer.{LARGE}.lora_magnitude_vector": torch.ones(3)})),
        "no part of a plain LoRA",
    ),
    "whole differences": (
        tensors_of(lambda t: t.update({f"transformer.{LARGE}.diff_b": torch.ones(3)})),
        "no part of a plain LoRA",
    ),
    "half a pair": (spoil("lora_B", lambda _: None), "lacks lora_B"),
    "missing modules": (
        tensors_of(lambda t: [t.pop(key) for key in list(t) if ".vace_blocks.1." in key]),
        "lacks 8 of 40 modules, such as vace_blocks.1.attn1.to_q",
    ),
    "other modules": (
        tensors_of(lambda t: t.update({k.replace("blocks.1.", "blocks.7."): t.pop(k) for k in list(t)})),
        "modules, such as .*blocks.7.* are not in this WanVACETransformer3DModel",
    ),
    "other width": (
        tensors_of(lambda t: t.update({k: v[:, :-1].contiguous() for k, v in t.items() if "lora_A" in k})),
        r"is for a weight of \[32, 31\], here it is \[32, 32\]",
    ),
    "other rank": (spoil("lora_A", lambda tensor: tensor[:-1]), "they must be"),
    "rank of the settings": (settings_of(r=RANK + 1), "has rank 4, its settings say 5"),
    "not a number": (spoil("lora_B", lambda tensor: tensor * float("nan")), "is not finite"),
    "infinite": (spoil("lora_A", lambda tensor: tensor + float("inf")), "is not finite"),
    "DoRA in the settings": (settings_of(use_dora=True), "use_dora"),
    "another method": (settings_of(peft_type="LOHA"), "peft_type LOHA"),
    "alpha of 0": (settings_of(lora_alpha=0), "above 0"),
    "settings without alpha": (only_peft_weights, "adapter_config.json is missing"),
    "one layer twice": (
        tensors_of(lambda t: t.update({f"transformer.{LARGE}.lora_down.weight": torch.zeros(RANK, 32)})),
        f"gives {LARGE} a second A",
    ),
    "another alpha": (
        tensors_of(lambda t: t.update({f"transformer.{LARGE}.alpha": torch.tensor(99.0)})),
        f"alpha of {LARGE} is 99.0, its settings say",
    ),
    "two alphas": (
        tensors_of(lambda t: t.update({f"transformer.{LARGE}.alpha": torch.ones(2)})),
        f"alpha of {LARGE} is 2 numbers",
    ),
    "no expression": (settings_of(rank_pattern={"(": 4}), "its settings are not usable"),
    "no pattern": (settings_of(rank_pattern=[4]), "its settings are not usable"),
    "no number": (settings_of(alpha_pattern={"to_q": "x"}), "those of patterns, must be numbers"),
    "another base": (
        info_of(base_model="Wan-AI/other", base_revision="abc", base_weights="12345678"),
        r"trained on Wan-AI/other \(abc, weights 12345678\); this is random \(weights \w{8}\)",
    ),
    "another name": (info_of(base_model="other", base_weights=None), "trained on other; this is random"),
    "another order": (info_of(reference_order="given"), "references in 'given' order; random has 'reversed'"),
    "a newer schema": (info_of(schema=99), "schema 99 is newer"),
    "no base": (info_of(base_model=None), "base_model"),
    "no noise levels": (info_of(noise_levels=[0.8, 0.4]), "igrpo.json is not usable: noise_levels"),
    "no guidance": (info_of(guidance=0), "igrpo.json is not usable: guidance"),
    "no JSON": (lambda folder: void((folder / INFO_FILE).write_text("{")), "igrpo.json is not usable"),
    "a list": (lambda folder: void((folder / INFO_FILE).write_text("[]")), "igrpo.json is not usable"),
}


@pytest.mark.parametrize("case", WRONG)
def test_s9_s10_what_is_wrong_is_refused_and_changes_nothing(
    pipe: IdentityPipeline, adapter: Path, saved: Path, base: Tensor, case: str
) -> None:
    change, message = WRONG[case]
    pipe.load_adapter(saved, 0.5)
    change(adapter)
    with pytest.raises(WeightsError, match=message):
        pipe.load_adapter(adapter)
    assert pipe.adapter is not None
    said = {"name": "random", "hash": pipe.adapter.hash, "noise_levels": [0.0, 1.0], "guidance": None}
    assert pipe.adapter.settings == {**said, "scale": 0.5}
    pipe.unload_adapter()
    assert torch.equal(says(pipe.backbone.transformer), base)


def test_the_folder_of_a_run_says_where_its_adapter_is(adapter: Path) -> None:
    run = adapter.parent / "run"
    run.mkdir()
    adapter.rename(run / "adapter")
    with pytest.raises(WeightsError, match=r"holds no .*; give '.*run/adapter'"):
        read_adapter(run)


def test_s8_an_adapter_of_another_model(pipe: IdentityPipeline, saved: Path, tmp_path: Path) -> None:
    """Other weights under the same name; another width; no VACE."""
    with pytest.raises(WeightsError, match=r"trained on random \(weights \w+\); this is random \(weights"):
        tiny_pipeline(seed=1).load_adapter(saved)
    from diffusers import WanTransformer3DModel

    stock = tiny_stock()
    config = {k: v for k, v in stock.transformer.config.items() if not k.startswith(("vace", "_"))}
    plain = WanTransformer3DModel(**config)
    from igrpo_sdk.adapters.use import check_fit

    with pytest.raises(WeightsError, match="16 of its 40 modules, such as vace_blocks"):
        check_fit(plain, read_adapter(saved))
    add_adapter(plain, LoraSettings(RANK), 0)
    info = AdapterInfo("random", "reversed", base_weights=weights_mark(pipe.backbone.transformer))
    with pytest.raises(WeightsError, match="lacks 16 of 40 modules, such as vace_blocks"):
        pipe.load_adapter(save_adapter(tmp_path / "phantom", plain, info))


def test_the_same_base_under_another_name(pipe: IdentityPipeline, adapter: Path, aligned: Tensor) -> None:
    info_of(base_model="Wan-AI/other", base_revision="abc")(adapter)
    pipe.load_adapter(adapter)
    assert torch.equal(says(pipe.backbone.transformer), aligned)


def test_revisions_decide_where_there_is_no_mark(shared: IdentityPipeline) -> None:
    preset = replace(TINY, revision="one")
    AdapterInfo("random", "reversed", base_revision="one").check("x", preset, shared.backbone)
    AdapterInfo("random", "reversed").check("x", preset, shared.backbone)
    with pytest.raises(WeightsError, match=r"trained on random \(two\); this is random \(one\)"):
        AdapterInfo("random", "reversed", base_revision="two").check("x", preset, shared.backbone)


def test_sources_that_are_nothing(pipe: IdentityPipeline, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter.bin").write_bytes(b"x")
    for source, error in (
        ("nothing here", InputError),
        ("", InputError),
        ("default", InputError),
        ("none", InputError),
        (tmp_path / "adapter.bin", WeightsError),
        ("someone/something", HubError),
    ):
        with pytest.raises(error, match="adapter"):
            pipe.load_adapter(source)
    for scale in (-0.1, 4.1, float("nan"), True, "1"):
        with pytest.raises(InputError, match="adapter_scale"):
            pipe.load_adapter(saved, scale)  # type: ignore[arg-type]
    assert pipe.adapter is None


def test_a_transformer_that_holds_another_adapter(pipe: IdentityPipeline, saved: Path) -> None:
    transformer = pipe.backbone.transformer
    add_adapter(transformer, LoraSettings(2), 0)
    with pytest.raises(InputError, match="holds an adapter already"):
        pipe.load_adapter(saved)
    with pytest.raises(InputError, match="holds an adapter already"):
        add_adapter(transformer, LoraSettings(2), 0)
    remove_adapter(transformer)
    fused = copy.deepcopy(transformer)
    fused.fuse_qkv_projections()
    with pytest.raises(InputError, match="its projections are fused"):
        add_adapter(fused, LoraSettings(2), 0)
    with pytest.raises(InputError, match="holds no adapter"):
        save_adapter(saved / "x", transformer, AdapterInfo("random", "reversed"))


# ---- scale, off, fused, removed


def test_s12_scale_zero_and_switched_off_are_the_base(
    pipe: IdentityPipeline, saved: Path, base: Tensor, aligned: Tensor
) -> None:
    transformer = pipe.backbone.transformer
    pipe.load_adapter(saved, 0)
    assert torch.equal(says(transformer), base)
    adapter = pipe.adapter
    assert adapter is not None
    adapter.scale = 1
    assert torch.equal(says(transformer), aligned)
    with adapter.disabled():
        assert torch.equal(says(transformer), base) and adapter.settings is None
        with adapter.disabled():
            assert torch.equal(says(transformer), base)
        assert torch.equal(says(transformer), base)
    assert torch.equal(says(transformer), aligned) and adapter.settings is not None
    adapter.scale = 0.5
    assert (says(transformer) - base).abs().max() < (aligned - base).abs().max()
    for scale in (-1, 5, float("inf")):
        with pytest.raises(InputError, match="adapter_scale"):
            adapter.scale = scale


def test_s11_load_fuse_unfuse_and_unload_again_and_again(
    pipe: IdentityPipeline, saved: Path, base: Tensor, aligned: Tensor
) -> None:
    transformer = pipe.backbone.transformer
    mark = weights_mark(transformer)
    for _ in range(10):
        pipe.load_adapter(saved)
        adapter = pipe.adapter
        assert adapter is not None
        adapter.fuse()
        adapter.fuse()
        torch.testing.assert_close(says(transformer), aligned, rtol=1e-4, atol=1e-4)
        assert adapter.fused and weights_mark(transformer) != mark
        with pytest.raises(InputError, match="unfuse it first"):
            adapter.scale = 0.5
        with adapter.disabled():
            assert torch.equal(says(transformer), base)
            with pytest.raises(InputError, match="switched off"):
                adapter.fuse()
        assert adapter.fused
        adapter.unfuse()
        adapter.unfuse()
        assert torch.equal(says(transformer), aligned) and weights_mark(transformer) == mark
        adapter.fuse()
        pipe.unload_adapter()
        assert torch.equal(says(transformer), base) and weights_mark(transformer) == mark
    assert list(transformer.state_dict()) == list(tiny_stock().transformer.state_dict())
    pipe.unload_adapter()  # none is there


def test_another_is_loaded_in_place_of_a_fused_one(
    pipe: IdentityPipeline, saved: Path, adapter: Path, base: Tensor
) -> None:
    """What belongs to the model is told by the base's weights, which are not there while one is fused."""
    pipe.load_adapter(saved)
    assert pipe.adapter is not None
    pipe.adapter.fuse()
    fused = says(pipe.backbone.transformer)
    info_of(base_weights="12345678")(adapter)
    with pytest.raises(WeightsError, match="weights 12345678"):
        pipe.load_adapter(adapter)
    assert pipe.adapter.fused and torch.equal(says(pipe.backbone.transformer), fused)
    pipe.load_adapter(saved, 0.0)
    assert not pipe.adapter.fused and torch.equal(says(pipe.backbone.transformer), base)


def test_nothing_is_loaded_while_an_adapter_is_off(
    pipe: IdentityPipeline, saved: Path, aligned: Tensor
) -> None:
    pipe.load_adapter(saved)
    assert pipe.adapter is not None
    with pipe.adapter.disabled():
        for change in (lambda: pipe.load_adapter(saved), pipe.unload_adapter):
            with pytest.raises(InputError, match="load and unload outside of disabled"):
                change()
    assert torch.equal(says(pipe.backbone.transformer), aligned)


def test_an_error_inside_leaves_the_adapter_on(pipe: IdentityPipeline, saved: Path, aligned: Tensor) -> None:
    pipe.load_adapter(saved)
    assert pipe.adapter is not None
    pipe.adapter.fuse()
    with pytest.raises(RuntimeError, match="mine"), pipe.adapter.disabled():
        raise RuntimeError("mine")
    assert pipe.adapter.fused
    pipe.adapter.unfuse()
    assert torch.equal(says(pipe.backbone.transformer), aligned)


class Velocities:
    """Those of one request at noise levels, in one batch."""

    def __init__(self, pipe: IdentityPipeline) -> None:
        self.backbone = pipe.backbone
        request = pipe.check_inputs(people(2), PROMPT, 1)
        self.conditions = pipe.encode(request)
        self.noise = draw_noise([1], [pipe.backbone.latent_shape(request.config.geometry, 2)])

    @torch.no_grad()
    def __call__(self, *levels: float, guidance: float = 3.0) -> Tensor:
        part = self.conditions.select([0] * len(levels))
        many = self.noise.expand(len(levels), -1, -1, -1, -1)
        return self.backbone.velocity(
            many, torch.tensor(levels, dtype=torch.float64), part, Guidance(guidance)
        )


def used(pipe: IdentityPipeline, directory: Path, use: AdapterUse) -> Adapter:
    """An adapter made for a use, and loaded: what it is used for is written beside it."""
    pipe.backbone.adapter_use = use
    make_adapter(pipe, directory)
    pipe.backbone.adapter_use = AdapterUse()
    pipe.load_adapter(directory)
    assert pipe.adapter is not None and pipe.adapter.info is not None and pipe.adapter.info.use == use
    return pipe.adapter


def test_an_adapter_is_used_at_its_noise_levels(pipe: IdentityPipeline, tmp_path: Path) -> None:
    """At others the model is the base, bit for bit, in a batch of several levels too."""
    said, levels = Velocities(pipe), (0.9, 0.8, 0.5, 0.4, 0.1)
    before = [said(level) for level in levels]
    adapter = used(pipe, tmp_path / "some", AdapterUse((0.4, 0.8)))
    assert adapter.settings is not None and adapter.settings["noise_levels"] == [0.4, 0.8]
    after = [said(level) for level in levels]
    same = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True, False, False, False, True]
    torch.testing.assert_close(said(*levels), torch.cat(after), rtol=1e-4, atol=1e-4)
    with adapter.disabled():
        assert torch.equal(said(0.5), before[2])
    with pytest.raises(InputError, match=r"fuse: .*noise_levels=\(0.4, 0.8\)"):
        adapter.fuse()
    pipe.unload_adapter()
    assert pipe.backbone.adapter_use == AdapterUse() and torch.equal(said(0.5), before[2])


def test_guidance_of_an_adapter_adds_its_change_once(pipe: IdentityPipeline, tmp_path: Path) -> None:
    """guide(base) + w (v_adapted - v_base) of the passes with the prompt; without guidance v_adapted."""
    said = Velocities(pipe)
    alone, guided, base = said(0.9, 0.5, guidance=1.0), said(0.9, 0.5), said(0.5)
    adapter = used(pipe, tmp_path / "added", AdapterUse((0.4, 0.8), 2.5))
    assert adapter.settings is not None and adapter.settings["guidance"] == 2.5
    adapted = said(0.9, 0.5, guidance=1.0)
    changed = (adapted - alone).abs().amax(dim=(1, 2, 3, 4))
    assert changed[0] < 1e-4 and changed[1] > 1e-2
    torch.testing.assert_close(said(0.9, 0.5), guided + 2.5 * (adapted - alone), rtol=1e-4, atol=1e-4)
    with adapter.disabled():
        torch.testing.assert_close(said(0.9, 0.5), guided, rtol=1e-4, atol=1e-4)
        assert torch.equal(said(0.5), base)
    assert not torch.equal(said(0.5), base)
    adapter.scale = 0.0
    torch.testing.assert_close(said(0.9, 0.5), guided, rtol=1e-4, atol=1e-4)
    assert torch.equal(said(0.5), base)
    with pytest.raises(InputError, match=r"fuse: .*guidance=2.5"):
        adapter.fuse()


def test_guidance_of_an_adapter_that_is_that_of_the_model_takes_no_third_pass(
    pipe: IdentityPipeline, tmp_path: Path
) -> None:
    """The same formula, of the passes that guidance has anyway."""
    said, passes = Velocities(pipe), 0
    alone, guided = said(0.5, guidance=1.0), said(0.5, guidance=4.0)

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    used(pipe, tmp_path / "added", AdapterUse((0.4, 0.8), 4.0))
    adapted = said(0.5, guidance=1.0)
    pipe.backbone.transformer.register_forward_pre_hook(count)
    for guidance, needed in ((4.0, 2), (3.0, 3)):
        passes = 0
        found = said(0.5, guidance=guidance)
        assert passes == needed
        base = guided if guidance == 4 else alone + 2 / 3 * (guided - alone)
        torch.testing.assert_close(found, base + 4.0 * (adapted - alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("guidance", [0, -1.0, float("nan"), 31.0, "4", True])
def test_guidance_that_is_none(guidance: Any) -> None:
    with pytest.raises(InputError, match="guidance"):
        LoraSettings(guidance=guidance)
    with pytest.raises(InputError, match="guidance"):
        AdapterInfo("random", "reversed", guidance=guidance)


@pytest.mark.parametrize("levels", [(0.5, 0.5), (0.8, 0.4), (-0.1, 1.0), (0.0, 1.1), (0.5,), 0.5, ("a", "b")])
def test_noise_levels_that_are_none(levels: Any) -> None:
    with pytest.raises(InputError, match="noise_levels"):
        LoraSettings(noise_levels=levels)
    with pytest.raises(InputError, match="noise_levels"):
        AdapterInfo("random", "reversed", noise_levels=levels)


def test_the_caches_do_not_depend_on_the_adapter(pipe: IdentityPipeline, saved: Path) -> None:
    references = people(2)
    request = pipe.check_inputs(references, PROMPT, 1)
    before = pipe.encode(request)
    pipe.load_adapter(saved)
    pipe.backbone.clear_caches()
    after = pipe.encode(request)
    assert torch.equal(before.control, after.control)
    assert torch.equal(before.prompt_embeds, after.prompt_embeds)


def test_videos_say_what_they_were_made_with(pipe: IdentityPipeline, saved: Path) -> None:
    def make() -> Any:
        return pipe(people(1), PROMPT, seed=1, steps=1)

    plain = make()
    assert plain.settings["adapter"] is None
    pipe.load_adapter(saved, 0.5)
    assert pipe.adapter is not None
    video = make()
    said = {"name": "random", "hash": pipe.adapter.hash, "noise_levels": [0.0, 1.0], "guidance": None}
    assert video.settings["adapter"] == {**said, "scale": 0.5}
    assert not np.array_equal(video.frames, plain.frames)
    with pipe.adapter.disabled():
        assert np.array_equal(make().frames, plain.frames) and make().settings["adapter"] is None
        others: list[Any] = []
        thread = Thread(target=lambda: others.append(make()))
        thread.start()
        thread.join(0.3)
        assert not others  # it waits until the adapter is back
    thread.join()
    assert np.array_equal(others[0].frames, video.frames) and others[0].settings == video.settings


# ---- training


def test_a_new_adapter_is_a_function_of_its_seed(pipe: IdentityPipeline) -> None:
    transformer = pipe.backbone.transformer
    drawn = []
    for seed in (3, 3, 4):
        state = torch.get_rng_state()
        drawn.append([p.detach().clone() for p in add_adapter(transformer, LoraSettings(64, 8.0), seed)])
        assert torch.equal(torch.get_rng_state(), state)
        remove_adapter(transformer)
    a, again, other = (torch.cat([t.flatten() for t in tensors[::2]]) for tensors in drawn)
    assert torch.equal(a, again) and not torch.equal(a, other)
    assert abs(float(a.std()) * 64 - 1) < 0.02  # N(0, 1 / r**2)
    assert not any(t.any() for t in drawn[0][1::2])
    assert {t.dtype for t in drawn[0]} == {torch.float32}


def test_a_new_adapter_begins_with_another(
    pipe: IdentityPipeline, saved: Path, aligned: Tensor, base: Tensor
) -> None:
    transformer = pipe.backbone.transformer
    settings = LoraSettings(2 * RANK, 3 * ALPHA, initial=str(saved))
    parameters = add_adapter(transformer, settings, 3)
    assert torch.allclose(says(transformer), aligned, atol=1e-5) and not torch.equal(aligned, base)
    assert {p.dtype for p in parameters} == {torch.float32} and all(p.requires_grad for p in parameters)
    of_length_one = [a.norm(dim=1) / math.sqrt(a.shape[1]) * 2 * RANK for a in parameters[::2]]
    assert torch.allclose(torch.cat([one[:RANK] for one in of_length_one]), torch.ones(1), atol=1e-4)
    drawn = torch.cat([one[RANK:] for one in of_length_one])
    assert abs(float(drawn.detach().square().mean()) - 1) < 0.1 and not any(
        b[:, RANK:].any() for b in parameters[1::2]
    )
    with adapter_disabled(transformer):
        assert torch.equal(says(transformer), base)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (LoraSettings(RANK - 1), f"has rank {RANK}; give rank={RANK} or more"),
        (LoraSettings(RANK, targets=("attn1.to_q",)), "is of other layers than targets"),
        (LoraSettings(RANK, guidance=3.0), r"has AdapterUse\(.*, guidance=None\); give the same"),
    ],
)
def test_an_adapter_that_none_can_begin_with(
    pipe: IdentityPipeline, saved: Path, base: Tensor, settings: LoraSettings, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        add_adapter(pipe.backbone.transformer, replace(settings, initial=str(saved)), 0)
    with pytest.raises(InputError, match="nowhere"):
        add_adapter(pipe.backbone.transformer, replace(settings, initial="nowhere"), 0)
    assert torch.equal(says(pipe.backbone.transformer), base)


def test_everything_trains_and_the_reference_does_not(pipe: IdentityPipeline, base: Tensor) -> None:
    transformer = pipe.backbone.transformer
    parameters = add_adapter(transformer, LoraSettings(RANK, ALPHA), 3)
    randomise(transformer)
    trainable = [p for p in transformer.parameters() if p.requires_grad]
    assert len(trainable) == len(parameters) and all(
        p is q for p, q in zip(trainable, parameters, strict=True)
    )
    with adapter_disabled(transformer):
        assert torch.equal(says(transformer), base)
    assert all(p.requires_grad for p in parameters)
    with torch.enable_grad():
        says.__wrapped__(transformer).square().mean().backward()  # type: ignore[attr-defined]
    assert all(p.grad is not None and p.grad.any() for p in parameters)
    remove_adapter(transformer)
    with adapter_disabled(transformer):
        assert torch.equal(says(transformer), base)


def test_settings_of_a_new_adapter(pipe: IdentityPipeline) -> None:
    transformer = pipe.backbone.transformer
    for wrong in ({"rank": 0}, {"rank": 4.0}, {"alpha": 0}, {"alpha": float("nan")}, {"targets": "to_q"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            LoraSettings(**wrong)  # type: ignore[arg-type]
    for targets in (("to_q", "nothing"), ("o_q",), ("add_k_proj",)):
        with pytest.raises(InputError, match="no linear layer is called"):
            add_adapter(transformer, LoraSettings(2, targets=targets), 0)
    with pytest.raises(InputError, match="seed"):
        add_adapter(transformer, LoraSettings(2), -1)
    assert not adapter_parameters(transformer)
    assert len(add_adapter(transformer, LoraSettings(2, targets=("attn1.to_q",)), 0)) == 2 * 5


# ---- writing


def test_nothing_is_written_over_and_nothing_half(
    pipe: IdentityPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, target = pipe.backbone.transformer, tmp_path / "out"
    info = AdapterInfo.of(TINY, pipe.backbone)
    parameters = add_adapter(transformer, LoraSettings(2), 0)
    save_adapter(target, transformer, info)
    first = (target / WEIGHTS_FILE).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_adapter(target, transformer, info)
    randomise(transformer)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ResourceError, match="No space left"):
            save_adapter(target, transformer, info, overwrite=True)
    with pytest.raises(ResourceError):
        save_adapter(target / WEIGHTS_FILE / "folder", transformer, info)  # a file is in the way
    with pytest.raises(InputError, match="metrics"):
        save_adapter(target, transformer, replace(info, metrics={"x": float("nan")}), overwrite=True)
    assert (target / WEIGHTS_FILE).read_bytes() == first and os.listdir(tmp_path) == ["out"]
    save_adapter(target, transformer, info, overwrite=True)
    assert (target / WEIGHTS_FILE).read_bytes() != first and os.listdir(tmp_path) == ["out"]
    with torch.no_grad():
        parameters[0][0, 0] = float("nan")
    with pytest.raises(NumericsError, match="lora_A.weight is not finite"):
        save_adapter(tmp_path / "bad", transformer, info)
    assert os.listdir(tmp_path) == ["out"]


def test_the_information_survives(saved: Path, shared: IdentityPipeline) -> None:
    info = AdapterInfo.read(saved / INFO_FILE)
    assert info == AdapterInfo.of(TINY, shared.backbone, "random", {"gain": 0.1})
    content = json.loads((saved / INFO_FILE).read_text("utf-8"))
    assert content["geometry"] == asdict(TINY.geometry) and content["reference_order"] == "reversed"
    assert (content["steps"], content["guidance_scale"], content["flow_shift"]) == (3, 2.5, 3.0)


# ---- from_pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a directory, with its preset."""
    from igrpo_sdk.backbones.loading import PRESET_FILE

    directory = tmp_path_factory.mktemp("models") / "random"
    tiny_stock().save_pretrained(directory)
    (directory / PRESET_FILE).write_text(json.dumps(asdict(TINY)), "utf-8")
    return directory


def test_which_adapter_is_loaded(model: Path, saved: Path) -> None:
    def load(**options: Any) -> Any:
        return IdentityPipeline.from_pretrained(model, device="cpu", **options).adapter

    assert load() is None and load(adapter="none") is None
    assert load(adapter=str(saved), adapter_scale=0.5).settings["scale"] == 0.5
    own = replace(TINY, adapter=str(saved))
    assert load(preset=own).name == "random" and load(preset=own, adapter="none") is None
    for scale in (0.5, 9):
        with pytest.raises(InputError, match="adapter_scale"):
            load(adapter_scale=scale)
    with pytest.raises(InputError, match="adapter: 'nothing here'"):
        load(adapter="nothing here")


def test_an_adapter_brings_its_base(shipped_weights: Path, tmp_path: Path) -> None:
    """The shipped model: its adapter is saved, and from its directory alone the whole is loaded."""
    base = IdentityPipeline.from_pretrained("tiny-vace", adapter="none", device="cpu")
    directory = make_adapter(base, tmp_path / "aligned", LoraSettings(2, 4.0))
    assert json.loads((directory / INFO_FILE).read_text("utf-8"))["base_model"] == "tiny-vace"
    pipe = IdentityPipeline.from_pretrained(directory, device="cpu")
    assert pipe.adapter is not None and pipe.adapter.name == "aligned" and pipe.preset.name == "tiny-vace"
    stock = base.to_diffusers()
    stock.load_lora_weights(directory, weight_name=WEIGHTS_FILE)
    assert torch.equal(says(pipe.backbone.transformer), says(stock.transformer))
    comparison = pipe.compare(people(2), PROMPT, seed=1, steps=1, height=48, width=48, num_frames=5)
    assert not np.array_equal(comparison.base.frames, comparison.aligned.frames)


def test_a_base_that_is_not_there(adapter: Path, model: Path) -> None:
    for place in (str(model), ".", "../random"):  # a downloaded file must not choose folders here
        info_of(base_model=place)(adapter)
        with pytest.raises(WeightsError, match="is no preset and no Hub repository"):
            IdentityPipeline.from_pretrained(adapter, device="cpu")
    info_of(base_model="random")(adapter)
    with pytest.raises(WeightsError, match="its base 'random' is no preset and no Hub repository"):
        IdentityPipeline.from_pretrained(adapter, device="cpu")
    (adapter / INFO_FILE).write_text("{")
    with pytest.raises(WeightsError, match="igrpo.json is not usable"):
        IdentityPipeline.from_pretrained(adapter, device="cpu")


def test_h2_a_repository(
    pipe: IdentityPipeline, saved: Path, aligned: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache of the Hub's client: there is no network. Nothing else of a repository is wanted."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HubError, match="adapter someone/faces: "):
        pipe.load_adapter("someone/faces")
    cached = tmp_path / "models--someone--faces"
    shutil.copytree(saved, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    pipe.load_adapter("someone/faces")
    assert torch.equal(says(pipe.backbone.transformer), aligned)
    assert pipe.adapter is not None and pipe.adapter.name == "someone/faces"
    with pytest.raises(WeightsError, match="its base 'random'"):
        IdentityPipeline.from_pretrained("someone/faces", device="cpu")
