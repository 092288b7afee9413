"""Adapters that others made: what they call things, where they say alpha, and what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from lora import ALPHA, RANK, edited, make_adapter, says
from safetensors.torch import load_file, save_file
from test_adapters import original, peft_adapter, settings_of, spoil, tensors_of
from tiny import tiny_pipeline
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters import lora
from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.names import parse_key
from igrpo_sdk.adapters.read import WEIGHTS_FILE, AdapterFile, read_adapter
from igrpo_sdk.adapters.use import check_fit
from igrpo_sdk.adapters.write import write_adapter
from igrpo_sdk.errors import HubError, InputError, WeightsError

Head = dict[str, str]
Cached = Callable[[str, dict[str, Path]], None]


@pytest.fixture(scope="module")
def shared() -> IdentityPipeline:
    return tiny_pipeline()


@pytest.fixture
def pipe(shared: IdentityPipeline) -> Iterator[IdentityPipeline]:
    """A pipeline that is the base before and after."""
    yield shared
    shared.unload_adapter()


@pytest.fixture(scope="module")
def saved(shared: IdentityPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter in our format: RANK, ALPHA."""
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


def renamed(saved: Path, target: Path, name: Callable[[str], str], head: Head, alpha: float | None) -> Path:
    """The tensors of an adapter under other names, with nothing that says alpha but what is given."""
    tensors = {name(key): tensor for key, tensor in load_file(saved / WEIGHTS_FILE).items()}
    if alpha is not None:
        for key in list(tensors):
            tensors[key.rpartition(".lora_")[0] + ".alpha"] = torch.tensor(alpha)
    save_file(tensors, target, head)
    return target


# ---- names


def bare(key: str) -> str:
    return original(key, "lora_A", "lora_B").removeprefix("diffusion_model.")


def default(key: str) -> str:
    return bare(key).replace(".weight", ".default.weight")


def kohya(key: str) -> str:
    module, _, part = (
        original(key, "lora_down", "lora_up").removeprefix("diffusion_model.").partition(".lora_")
    )
    return f"lora_unet_{module.replace('.', '_')}.lora_{part}"


def kohya_here(key: str) -> str:
    module, _, part = key.removeprefix("transformer.").partition(".lora_")
    part = part.replace("A", "down").replace("B", "up")
    return f"lora_unet_{module.replace('.', '_')}.lora_{part}"


def diffsynth_vace(key: str) -> str:
    return f"pipe.{'vace' if '.vace_blocks.' in key else 'dit'}.{default(key)}"


NAMES: dict[str, Callable[[str], str]] = {
    "bare original": bare,
    "bare diffusers": lambda key: key.removeprefix("transformer."),
    "DiffSynth": default,
    "DiffSynth with its prefix": lambda key: f"pipe.dit.{default(key)}",
    "DiffSynth's VACE": diffsynth_vace,
    "kohya and musubi": kohya,
    "kohya of diffusers": kohya_here,
    "PEFT of the original": lambda key: f"base_model.model.{default(key)}",
    "ComfyUI's whole model": lambda key: f"model.{original(key, 'lora_down', 'lora_up')}",
    "diffusers' old layers": lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
}


@pytest.mark.parametrize("naming", NAMES)
def test_the_same_tensors_under_other_names(
    pipe: IdentityPipeline, saved: Path, tmp_path: Path, aligned: Tensor, naming: str
) -> None:
    file = renamed(saved, tmp_path / "named.safetensors", NAMES[naming], {"lora_alpha": str(ALPHA)}, None)
    pipe.load_adapter(file)
    assert pipe.adapter is not None
    assert not pipe.adapter.warnings
    assert torch.equal(says(pipe.backbone.transformer), aligned)


@pytest.mark.parametrize(
    ("flat", "module"),
    [
        ("blocks_12_ffn_0", "blocks.12.ffn.net.0.proj"),
        ("vace_blocks_0_before_proj", "vace_blocks.0.proj_in"),
        ("blocks_3_cross_attn_k_img", "blocks.3.attn2.add_k_proj"),
        ("blocks_3_attn2_to_out_0", "blocks.3.attn2.to_out.0"),
        ("time_embedding_2", "condition_embedder.time_embedder.linear_2"),
        ("condition_embedder_time_proj", "condition_embedder.time_proj"),
        ("head_head", "proj_out"),
    ],
)
def test_names_without_dots(flat: str, module: str) -> None:
    assert parse_key("x", f"lora_unet_{flat}.alpha", "lora_unet_", "kohya").module == module


def test_a_name_without_dots_that_is_none_of_wan() -> None:
    with pytest.raises(WeightsError, match=r"'lora_unet_down_blocks_0_q.alpha' has no known name"):
        parse_key("x", "lora_unet_down_blocks_0_q.alpha", "lora_unet_", "kohya")


# ---- alpha, wherever it is said


def test_a_fraction_said_twice_is_compared_as_the_tensor_can_say_it(
    pipe: IdentityPipeline, adapter: Path
) -> None:
    """0.7 in the settings is 0.699999988 in a float32 tensor: they agree, and 0.7 is what is meant."""
    for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        settings_of(lora_alpha=0.7)(adapter)

        def say(tensors: dict[str, Tensor], kind: torch.dtype = kind) -> None:
            for key in [key for key in tensors if "lora_A" in key]:
                tensors[key.replace("lora_A.weight", "alpha")] = torch.tensor(0.7, dtype=kind)

        tensors_of(say)(adapter)
        file = read_adapter(adapter)
        assert set(file.alphas.values()) == {0.7}
        pipe.load_adapter(adapter)
    settings_of(lora_alpha=0.71)(adapter)
    with pytest.raises(WeightsError, match=r"is 0\.7, its settings say 0\.71"):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "head",
    [
        {"r": str(RANK), "lora_alpha": "2"},
        {"ss_network_alpha": "2.0", "ss_network_dim": str(RANK)},
        {"transformer.lora_alpha": "2", "transformer.r": str(RANK)},
        {"network_alpha": "2", "rank": "Dynamic"},
        {"alpha": "2", "ss_network_alpha": "2", "text_encoder.lora_alpha": "9"},
    ],
)
def test_alpha_only_in_the_head(saved: Path, tmp_path: Path, head: Head) -> None:
    for name in (kohya, bare, lambda key: f"base_model.model.{default(key)}"):
        file = read_adapter(renamed(saved, tmp_path / "x.safetensors", name, head, None))
        assert set(file.alphas.values()) == {2.0}
        assert file.warnings == ()


def test_rslora_in_the_head(saved: Path, tmp_path: Path) -> None:
    head = {"lora_alpha": "2", "use_rslora": "True"}
    file = read_adapter(renamed(saved, tmp_path / "x.safetensors", bare, head, None))
    assert set(file.alphas.values()) == {2 * RANK**0.5}


@pytest.mark.parametrize(
    ("head", "alpha", "found", "warning"),
    [
        ({}, None, RANK, "does not say its alpha"),
        ({"ss_network_alpha": "None"}, None, RANK, "does not say its alpha"),
        ({"ss_network_alpha": "0"}, None, RANK, "does not say its alpha"),  # kohya's word for the rank
        ({"ss_network_alpha": "2"}, 0.5, 0.5, "0.5 in its tensor, 2 in its head; the tensor's is used"),
        ({"ss_network_alpha": "0.7"}, 0.7, float(torch.tensor(0.7)), ""),
        ({}, 3.0, 3.0, ""),
    ],
)
def test_which_alpha_counts(
    saved: Path, tmp_path: Path, head: Head, alpha: float | None, found: float, warning: str
) -> None:
    file = read_adapter(renamed(saved, tmp_path / "x.safetensors", kohya, head, alpha))
    assert set(file.alphas.values()) == {float(found)}
    assert len(file.warnings) == bool(warning)
    assert all(warning in one for one in file.warnings)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            {"lora_alpha": "2", "ss_network_alpha": "4"},
            "says several alphas: lora_alpha=2, ss_network_alpha=4",
        ),
        ({"lora_alpha": "0"}, "lora_alpha='0', which must be a number above 0"),
        ({"lora_alpha": "-1"}, "must be a number above 0"),
        ({"alpha": "nan"}, "must be a number above 0"),
        ({"alpha": "1e999"}, "must be a number above 0"),
        ({"alpha": "9" * 5000}, "must be a number above 0"),
        ({"lora_alpha": "\x1b[31m"}, r"lora_alpha='\\x1b\[31m'"),
        ({"r": "64", "lora_alpha": "64"}, f"has rank {RANK}, its head says 64"),
    ],
)
def test_a_head_that_says_nonsense(saved: Path, tmp_path: Path, head: Head, message: str) -> None:
    file = renamed(saved, tmp_path / "x.safetensors", bare, head, None)
    with pytest.raises(WeightsError, match=message) as error:
        read_adapter(file)
    assert len(str(error.value)) < 400


def test_a_head_and_settings_that_differ(adapter: Path) -> None:
    path = adapter / WEIGHTS_FILE
    edited(path, path, lambda _, head: head.update({"lora_alpha": "3"}))
    with pytest.raises(WeightsError, match=r"alpha is 3 in its head, 8\.0 in its settings"):
        read_adapter(adapter)


def test_settings_beside_a_file_that_is_alone(saved: Path, tmp_path: Path) -> None:
    """adapter_config.json belongs to the only file of its folder, whatever names that has."""
    file = renamed(saved, tmp_path / "mine.safetensors", bare, {}, None)
    settings = {"r": RANK, "lora_alpha": 2, "target_modules": ["q", "k", "v", "o"], "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert set(read_adapter(file).alphas.values()) == {2 * RANK**0.5}
    tensors = load_file(file)
    del tensors["blocks.1.self_attn.o.lora_A.weight"], tensors["blocks.1.self_attn.o.lora_B.weight"]
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=r"lacks 1 of 40 modules, such as blocks\.1\.attn1\.to_out\.0"):
        check_fit(tiny_pipeline().backbone.transformer, read_adapter(file))
    shutil.copy(file, tmp_path / "other.safetensors")
    assert set(read_adapter(file).alphas.values()) == {float(RANK)}


# ---- types and numbers


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_loaded_exactly(
    pipe: IdentityPipeline, adapter: Path, tmp_path: Path, kind: torch.dtype
) -> None:
    """bfloat16 holds all that float8 can say."""
    path = adapter / WEIGHTS_FILE
    edited(path, path, lambda t, _: t.update({key: tensor.to(kind) for key, tensor in t.items()}))
    pipe.load_adapter(adapter)
    said = says(pipe.backbone.transformer)
    edited(path, path, lambda t, _: t.update({key: tensor.float() for key, tensor in t.items()}))
    pipe.load_adapter(adapter)
    assert torch.equal(says(pipe.backbone.transformer), said)


TO = "blocks.0.attn1.to_q"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "complex": (spoil("lora_A", lambda t: t.to(torch.complex64)), "is of type 'C64'; weights are floating"),
    "bool": (spoil("lora_B", lambda t: t > 0), "is of type 'BOOL'"),
    "int64": (spoil("lora_A", lambda t: t.long()), "is of type 'I64'"),
    "int8": (spoil("lora_A", lambda t: t.to(torch.int8)), "is of type 'I8'"),
    "float8 that is not a number": (
        tensors_of(
            lambda t: t.update(
                {k: (v * float("nan")).to(torch.float8_e4m3fn) for k, v in t.items() if "lora_A" in k}
            )
        ),
        "is not finite",
    ),
    "more than float32 holds": (
        spoil("lora_A", lambda t: t.double() * 1e300),
        r"holds numbers that torch\.float32 cannot hold; load the model in torch\.float64",
    ),
    "rank 0": (
        tensors_of(
            lambda t: t.update({k: v[:0] if "lora_A" in k else v[:, :0].contiguous() for k, v in t.items()})
        ),
        "hold no numbers",
    ),
    "a pair of rank 0": (
        tensors_of(
            lambda t: t.update(
                {
                    f"transformer.{TO}.lora_A.weight": torch.zeros(0, 32),
                    f"transformer.{TO}.lora_B.weight": torch.zeros(32, 0),
                }
            )
        ),
        "hold no numbers",
    ),
    "alpha of 0": (
        tensors_of(lambda t: t.update({f"transformer.{TO}.alpha": torch.tensor(0.0)})),
        "is 0, which must be above 0",
    ),
    "infinite alpha": (
        tensors_of(lambda t: t.update({f"transformer.{TO}.alpha": torch.tensor(float("inf"))})),
        "is inf, which must be above 0",
    ),
    "no name of a module": (
        tensors_of(lambda t: t.update({"transformer.a b\x1b.lora_A.weight": torch.zeros(2, 2)})),
        r"'a b\\x1b' is no name of a module",
    ),
    "endless rank pattern": (settings_of(rank_pattern={"(b+)+!": 4}), None),  # type: ignore[dict-item]
    "endless targets": (settings_of(target_modules="([a-z0-9_.]+)+!"), None),  # type: ignore[dict-item]
    "a lookahead": (
        settings_of(target_modules="(?!x).*"),
        "begins with .* which is not read; name the modules",
    ),
    "a list of objects": (settings_of(target_modules=[{}]), "target_modules: .* must be names"),
    "a number of targets": (settings_of(target_modules=-1), "target_modules: -1; must be names"),
    "half a class": (settings_of(target_modules="["), "its settings are not usable: pattern '\\['"),
    "a huge rank": (settings_of(r=10**29), "numbers above 0, at most"),
    "a huge whole number": (settings_of(r=10**400), "a number of 401 digits"),
    "a rank that is true": (settings_of(r=True), "numbers above 0"),
    "layers that are words": (settings_of(layers_to_transform=["1"]), "layers_to_transform"),
    "layers in an expression": (
        settings_of(layers_to_transform=[1], layers_pattern="(b+)+"),
        "layers_pattern",
    ),
    "PiSSA": (settings_of(init_lora_weights="pissa_niter_4"), "changes the base too"),
    "rslora in words": (settings_of(use_rslora="no"), "must be true or false"),
    "a reference that is nested": (
        lambda folder: void(
            edited(
                folder / WEIGHTS_FILE,
                folder / WEIGHTS_FILE,
                lambda _, head: head.update({"lora_adapter_metadata": "[" * 5000}),
            )
        ),
        "nested deeper than",
    ),
    "settings that are a list": (
        lambda folder: void(
            edited(
                folder / WEIGHTS_FILE,
                folder / WEIGHTS_FILE,
                lambda _, head: head.update({"lora_adapter_metadata": "[]"}),
            )
        ),
        "is no object",
    ),
    "a pickle": (
        lambda folder: void((folder / WEIGHTS_FILE).write_bytes(b"PK\x03\x04" + b"\0" * 100)),
        "is damaged .it is a pickle of PyTorch",
    ),
    "a pointer": (
        lambda folder: void(
            (folder / WEIGHTS_FILE).write_bytes(b"version https://git-lfs.github.com/spec/v1")
        ),
        "only a pointer of Git LFS",
    ),
    "information of other types": (
        lambda folder: void((folder / "igrpo.json").write_text('{"base_model": {}, "reference_order": 1}')),
        "igrpo.json is not usable: base_model",
    ),
    "information that is endless": (
        lambda folder: void((folder / "igrpo.json").write_text('{"steps": ' + "9" * 5000 + "}")),
        "igrpo.json is not usable: .*a number of 5000 digits",
    ),
}


def void(_: Any) -> None:
    """A lambda's value that nobody wants."""


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_soon_and_changes_nothing(
    pipe: IdentityPipeline, saved: Path, adapter: Path, aligned: Tensor, case: str
) -> None:
    change, message = WRONG[case]
    pipe.load_adapter(saved)
    loaded = pipe.adapter
    change(adapter)
    begun = time.process_time()
    if message is None:  # an expression that is matched in linear time, and matches nothing
        pipe.load_adapter(adapter)
    else:
        with pytest.raises(WeightsError, match=message) as error:
            pipe.load_adapter(adapter)
        assert len(str(error.value)) < 600
        assert pipe.adapter is loaded
    assert time.process_time() - begun < 5
    assert torch.equal(says(pipe.backbone.transformer), aligned)


# ---- on any error the pipeline has the adapter that it had


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("raised", [ValueError, RuntimeError, KeyboardInterrupt, MemoryError])
def test_whatever_is_raised_the_adapter_stays(
    pipe: IdentityPipeline,
    saved: Path,
    aligned: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[BaseException],
    fused: bool,
) -> None:
    """After the layers of another were put in, and before."""
    pipe.load_adapter(saved, 0.5)
    loaded = pipe.adapter
    assert loaded is not None
    if fused:
        loaded.fuse()
    before = says(pipe.backbone.transformer)
    expected = WeightsError if raised in (ValueError, RuntimeError) else raised
    inject = lora._inject

    def late(transformer: Any, file: AdapterFile) -> None:
        inject(transformer, file)
        raise raised("mine")

    def half(*_: Any, **__: Any) -> None:
        """PEFT puts some layers in, and then finds something."""
        raise raised("mine")

    for target, name, broken in ((lora, "_inject", late), (peft, "set_peft_model_state_dict", half)):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, broken)
            with pytest.raises(expected, match="mine"):
                pipe.load_adapter(saved)
        assert pipe.adapter is loaded
        assert loaded.fused is fused
        assert loaded.settings is not None
        assert loaded.settings["scale"] == 0.5
        assert torch.equal(says(pipe.backbone.transformer), before)
    loaded.unfuse()
    loaded.scale = 1.0
    assert torch.equal(says(pipe.backbone.transformer), aligned)
    pipe.load_adapter(saved)
    assert pipe.adapter is not loaded
    pipe.unload_adapter()
    with monkeypatch.context() as patch:
        patch.setattr(lora, "_inject", late)
        with pytest.raises(expected):
            pipe.load_adapter(saved)
    assert pipe.adapter is None
    pipe.load_adapter(saved)
    assert torch.equal(says(pipe.backbone.transformer), aligned)


# ---- equal adapters are equal bytes


def test_equal_adapters_are_equal_bytes(saved: Path, tmp_path: Path) -> None:
    """safetensors' own order of the head varies by process."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom safetensors.torch import load_file\n"
        "from igrpo_sdk.adapters.info import AdapterInfo\n"
        "from igrpo_sdk.adapters.write import write_adapter\n"
        "tensors = load_file(sys.argv[1])\n"
        "config = {'r': 4, 'lora_alpha': 4}\n"
        "for i in range(8):\n"
        "    write_adapter(Path(sys.argv[2]) / str(i), tensors, config, AdapterInfo('a', 'b'))\n"
    )
    tensors = {key.removeprefix("transformer."): t for key, t in load_file(saved / WEIGHTS_FILE).items()}
    save_file(tensors, tmp_path / "given.safetensors")
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "given.safetensors"), str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        timeout=120,
    )
    made = write_adapter(tmp_path / "here", tensors, {"r": 4, "lora_alpha": 4}, AdapterInfo("a", "b"))
    files = {(tmp_path / str(i) / WEIGHTS_FILE).read_bytes() for i in range(8)}
    assert files == {(made / WEIGHTS_FILE).read_bytes()}
    assert load_file(made / WEIGHTS_FILE).keys() == {f"transformer.{key}" for key in tensors}
    assert read_adapter(made).alphas.keys() == read_adapter(saved).alphas.keys()


# ---- where it is


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    """A function (repository, {name: file}) that puts one into the cache of the Hub's client."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(repository: str, files: dict[str, Path]) -> None:
        folder = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        for name, source in files.items():
            (folder / "snapshots" / "abc" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "snapshots" / "abc" / name)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text("abc")

    return put


def test_a_head_whose_length_begins_as_a_pickle_does(saved: Path, tmp_path: Path) -> None:
    """A head of 0x580 bytes begins with the bytes 80 05, as a pickle may."""
    data = (saved / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    longer = (length // 256 + 1) * 256 + 0x80
    head = longer.to_bytes(8, "little") + data[8 : 8 + length] + b" " * (longer - length)
    (tmp_path / "x.safetensors").write_bytes(head + data[8 + length :])
    assert read_adapter(tmp_path / "x.safetensors").weights.keys() == read_adapter(saved).weights.keys()


def test_the_only_file_of_a_repository_is_taken(
    pipe: IdentityPipeline, saved: Path, aligned: Tensor, cached: Cached, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("#")
    cached("someone/style", {"my_style_v1.safetensors": saved / WEIGHTS_FILE, "README.md": readme})
    cached("someone/deep", {"loras/deep.safetensors": saved / WEIGHTS_FILE})
    for name in (
        "someone/style",
        "someone/style@main",
        "someone/deep",
        "someone/deep/loras/deep.safetensors",
    ):
        pipe.load_adapter(name)
        assert torch.equal(says(pipe.backbone.transformer), aligned)


def test_of_several_files_one_is_picked_by_name(saved: Path, cached: Cached, tmp_path: Path) -> None:
    weights = saved / WEIGHTS_FILE
    cached("someone/styles", {"a.safetensors": weights, "b.safetensors": weights})
    with pytest.raises(WeightsError, match=r"holds a\.safetensors, b\.safetensors; .*someone/styles/a\.safe"):
        read_adapter("someone/styles")
    assert read_adapter("someone/styles/b.safetensors").name == "someone/styles/b"
    assert read_adapter("someone/styles/b.safetensors", "main").name == "someone/styles/b"
    assert read_adapter("someone/styles/b.safetensors@main").name == "someone/styles/b"
    with pytest.raises(WeightsError, match=r"holds no 'c\.safetensors'; there is a\.safetensors, b"):
        read_adapter("someone/styles/c.safetensors")
    with pytest.raises(InputError, match="revision"):
        read_adapter("someone/styles/b.safetensors@main", "other")
    cached("someone/styles", {WEIGHTS_FILE: weights})  # the usual name comes first
    assert read_adapter("someone/styles").name == "someone/styles"


def test_what_is_asked_of_the_hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network: the names are listed, and only the file and what belongs to it is downloaded."""
    import huggingface_hub

    asked: list[Any] = []
    folder = tmp_path / "there"
    shutil.copytree(saved, folder / "loras")
    (folder / "loras" / WEIGHTS_FILE).rename(folder / "loras" / "my[1].safetensors")

    def listed(_: Any, repository: str, revision: str | None = None) -> list[str]:
        asked.append((repository, revision))
        return ["README.md", "loras/my[1].safetensors"]

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    file = read_adapter("someone/style", "v1")
    assert file.info is not None
    files = ["loras/my[[]1].safetensors", "loras/igrpo.json", "loras/adapter_config.json"]
    assert asked == [("someone/style", "v1"), files]


def test_a_path_is_looked_for_here_first_and_told_of(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Cached
) -> None:
    monkeypatch.chdir(tmp_path)
    cached("mine/one", {"a.safetensors": saved / "igrpo.json"})
    shutil.copytree(saved, tmp_path / "mine" / "one")
    assert read_adapter("mine/one").name == "one"
    said = r"there is no such file or folder \(seen from .*\)"
    for wrong in (
        "mine/other.safetensors",
        "./mine/other",
        "mine/deep/other.safetensors",
        "/nowhere/x.safetensors",
        Path("mine/two"),
        "x" * 5000,
    ):
        with pytest.raises(InputError, match=rf"adapter: .*: {said}") as error:
            read_adapter(wrong)
        assert len(str(error.value)) < 500
    with pytest.raises(HubError, match=rf"adapter other/two: .*As a path: {said}"):
        read_adapter("other/two")
    with pytest.raises(HubError, match=rf"As a path: {said}"):
        read_adapter("other/two/file.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(WeightsError, match="no ordinary file"):
        read_adapter("pipe.safetensors")


def test_peft_files_say_what_peft_says(pipe: IdentityPipeline, tmp_path: Path) -> None:
    """Patterns that need more than names, and rsLoRA, beside the tests of our own reading of them."""
    directory, expected = peft_adapter(
        tmp_path / "peft",
        use_rslora=True,
        rank_pattern={r"^blocks\.[01]\.attn1\.to_(q|k)": 2, r"vace_blocks\.\d+\..*": 3},
        alpha_pattern={"attn2.to_v": 5, r"to_out\.\d": 7},
    )
    pipe.load_adapter(directory)
    said = says(pipe.backbone.transformer)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
