"""Mutated files and values, seeded: whatever is given, the answer is a result or an `IgrpoError`, in time.

    python tests/faults/fuzzing.py [KIND ...] [--count 10000] [--seed 0] [--seconds S]

Each kind runs in a process of its own, which says which input it is at: one that aborts, that takes over 10
seconds, or that takes gigabytes, is a failure of that input, and the next process goes on behind it. Input N
of a kind is the same in every run with the same seed: `--first N --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import json
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 10.0
"""Seconds that an input may take."""
START = 120.0
"""Seconds that a process may take to start."""
MOST_MEMORY = 3 * 2**20
"""KiB that a process may take at any time."""
LONGEST_MESSAGE = 1500
"""Most characters of an error's message."""

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -(10**25), 0.1, -0.0, 1e308, 5e-324),
    *("", " ", "x" * 5000, "\0", "\ud800", "../../etc/passwd", "nan", "-inf", "1e400", "{", "[", "&a", "*a"),
    *(
        [],
        {},
        [[]],
        [{}],
        {"": {}},
        [None],
        [1, "a", {}],
        "\N{GRINNING FACE}",
        "(a+)+$",
        "%s%n",
        "a" * 300 + ".png",
    ),
)


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# ---- mutations


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file with some of its bytes changed, cut out, doubled or added."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8, 32))):
        if not content:
            break
        at = rng.randrange(len(content))
        change = rng.randrange(8)
        if change <= 2:
            content[at] = rng.randrange(256)
        elif change == 3:
            content[at] ^= 1 << rng.randrange(8)
        elif change == 4:
            content[at : at + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1")
            )
        elif change == 5:
            del content[at : at + rng.choice((1, 4, 64, 4096))]
        elif change == 6:
            content[at:at] = content[at : at + rng.choice((1, 4, 64, 1024))]
        else:
            content[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)


def mutated_value(value: Any, rng: random.Random) -> Any:
    """JSON values with one or more nodes replaced, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        node: Any = value
        while True:
            if not isinstance(node, dict | list) or not node:
                return hostile(rng)
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.6:
                node = node[key]
                continue
            if isinstance(node, dict) and rng.random() < 0.15:
                del node[key]
            elif isinstance(node, dict) and rng.random() < 0.15:
                node[rng.choice(("x", "", "seed", "x" * 5000, "\0"))] = hostile(rng)
            else:
                node[key] = hostile(rng)
            break
    return value


def hostile(rng: random.Random) -> Any:
    """A value that nobody means."""
    return nested(rng.choice((5, 50, 300))) if rng.random() < 0.05 else copy.deepcopy(rng.choice(HOSTILE))


# ---- the kinds: each makes a function of (rng, folder) that feeds one input


Feed = Callable[[random.Random], None]


def pictures(folder: Path) -> Feed:
    """Files of every format, `data:` addresses, arrays, and PIL images with odd facts about them."""
    import numpy as np
    from PIL import Image, ImageCms

    from igrpo_sdk import Reference

    noise = np.random.default_rng(0).integers(0, 255, (48, 40, 4), np.uint8)
    image = Image.fromarray(noise[..., :3])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    clear = image.quantize(32)
    files: list[bytes] = []
    for form, source, options in (
        ("PNG", image, {"icc_profile": profile}),
        ("PNG", Image.fromarray(noise), {}),
        ("PNG", clear, {"transparency": 3}),
        ("PNG", Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        ("JPEG", image, {"exif": exif, "icc_profile": profile}),
        ("JPEG", image.convert("CMYK"), {}),
        ("JPEG", image, {"progressive": True}),
        ("WEBP", Image.fromarray(noise), {"lossless": True}),
        ("WEBP", image, {"save_all": True, "append_images": [image.rotate(90)]}),
        ("GIF", clear, {"save_all": True, "append_images": [image, clear], "transparency": 1}),
        ("MPO", image, {"save_all": True, "append_images": [image]}),
    ):
        file = io.BytesIO()
        source.save(file, form, **options)
        files.append(file.getvalue())
    modes = (
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "LA",
        "La",
        "RGBa",
        "I",
        "F",
        "I;16",
        "LAB",
        "HSV",
        "YCbCr",
        "PA",
    )

    def odd_image(rng: random.Random) -> Any:
        made = Image.new(rng.choice(modes), rng.choice(((40, 48), (1, 1), (4000, 40), (33, 32))))
        for key in rng.sample(("transparency", "icc_profile", "exif", "gamma", "background"), 2):
            made.info[key] = rng.choice((hostile(rng), rng.randbytes(rng.randrange(300)), rng.randrange(300)))
        return made

    def odd_array(rng: random.Random) -> Any:
        shape = rng.choice(
            ((40, 48, 3), (3, 40, 48), (40, 48), (40, 48, 1), (4, 40, 48), (0, 3), (), (40,), (2, 2, 2, 2))
        )
        kind = rng.choice(("u1", "f4", "f8", "f2", "i8", "c8", "?", "O", "M8[s]", "S3", "U2", ">f8", "g"))
        values = np.zeros(shape, kind)
        if values.size and kind in ("f4", "f8") and rng.random() < 0.5:
            values.flat[0] = rng.choice((np.nan, np.inf, -1.0, 2.0))
        if len(shape) == 2 and rng.random() < 0.3:
            return np.matrix(values)
        return values[::-1, ::-1] if len(shape) > 1 and rng.random() < 0.2 else values

    def feed(rng: random.Random) -> None:
        way = rng.random()
        if way < 0.1:
            Reference.load(odd_array(rng))
        elif way < 0.2:
            Reference.load(odd_image(rng))
        elif way < 0.25:
            text = base64.b64encode(mutated_bytes(rng.choice(files), rng)).decode()
            Reference.load(rng.choice(("data:image/png;base64,", "data:,", "data:;base64", "")) + text)
        elif way < 0.28:
            Reference.load(hostile(rng))
        elif way < 0.35:
            path = folder / "picture"
            path.write_bytes(mutated_bytes(rng.choice(files), rng))
            Reference.load(path)
        else:
            Reference.load(mutated_bytes(rng.choice(files), rng))

    return feed


def videos(folder: Path) -> Feed:
    """Files of every container and of several codecs, read whole, sampled, and with their settings."""
    import av
    import numpy as np

    from igrpo_sdk import IdentityVideo
    from igrpo_sdk.media.decoding import sample_frames

    film = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8)
    files: list[tuple[str, bytes]] = []
    for suffix in (".mp4", ".webm", ".gif"):
        made = IdentityVideo(film, 8, {"prompt": "x"}).save(folder / f"made{suffix}")
        files.append((suffix, made.read_bytes()))
    for suffix, codec, pix_fmt in (
        (".mov", "prores_ks", "yuva444p10le"),
        (".mov", "mjpeg", "yuvj420p"),
        (".mkv", "ffv1", "yuv420p10le"),
        (".mkv", "libx264", "yuv422p"),
        (".mp4", "mpeg4", "yuv420p"),
        (".mp4", "libx264", "yuv444p"),
        (".webm", "libvpx", "yuva420p"),
    ):
        path = folder / f"made{suffix}"
        with av.open(str(path), "w") as container:
            options = {"auto-alt-ref": "0"} if "vpx" in codec else {}
            stream: Any = container.add_stream(codec, rate=8, options=options)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pix_fmt
            if suffix == ".mov":
                stream.set_display_rotation(90)
            stream.codec_context.sample_aspect_ratio = 2
            for pixels in film:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        files.append((suffix, path.read_bytes()))

    def feed(rng: random.Random) -> None:
        suffix, data = rng.choice(files)
        if rng.random() < 0.03:
            suffix = rng.choice(files)[0]
        path = folder / f"video{suffix}"
        head = rng.random() < 0.4  # headers are where a file says of itself what it is
        part = mutated_bytes(data[:900], rng) + data[900:] if head else mutated_bytes(data, rng)
        path.write_bytes(part)
        if rng.random() < 0.5:
            IdentityVideo.load(path)
        else:
            sample_frames(path, rng.choice((2, 3, 240)))

    return feed


def rows(folder: Path) -> Feed:
    """Files of rows: references, prompts, seeds."""
    from PIL import Image

    from igrpo_sdk.training.data.rows import read_cases

    Image.new("RGB", (40, 40)).save(folder / "a.png")
    row = {
        "references": ["a.png", "a.png"],
        "prompt": "Two people talk.",
        "plain_prompt": "Two people.",
        "refined_prompt": "Two people talk, one with a hat.",
        "seed": 7,
        "id": "one",
        "part": "all",
        "places": ["left", "right"],
    }
    text = "".join(json.dumps({**row, "id": f"case-{i}"}) + "\n" for i in range(3)).encode()

    def feed(rng: random.Random) -> None:
        path = folder / "rows.jsonl"
        if rng.random() < 0.5:
            path.write_bytes(mutated_bytes(text, rng))
        else:
            path.write_text(json.dumps(mutated_value(row, rng)) + "\n", "utf-8")
        read_cases(path, refined=rng.random() < 0.5)

    return feed


def recipes(folder: Path) -> Feed:
    """Recipes of alignments and of trainings, with overrides."""
    import yaml

    from igrpo_sdk.training.common.recipe import RECIPES, build, read_recipe
    from igrpo_sdk.training.policy.config import PolicyRecipe
    from igrpo_sdk.training.pretrain.flow import FlowRecipe
    from igrpo_sdk.training.pretrain.text import TextRecipe
    from igrpo_sdk.training.pretrain.vae import VaeRecipe
    from igrpo_sdk.training.reader.training import ReaderRecipe

    kinds: dict[str, type[Any]] = {
        "policy": PolicyRecipe,
        "vae": VaeRecipe,
        "text": TextRecipe,
        "flow": FlowRecipe,
        "reader": ReaderRecipe,
    }
    texts = [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))]
    values = [content for text in texts if (content := yaml.safe_load(text)).get("kind") in kinds]
    texts = [text for text in texts if yaml.safe_load(text).get("kind") in kinds]
    bombs = (
        "[" * 5000,
        "{a: &a [x], b: [*a, *a]}",
        "9" * 5000,
        "2001-13-45",
        "!!binary x",
        "- " * 400,
        ".inf",
        "1:2:3",
    )

    def override(rng: random.Random) -> str:
        group = rng.choice(("update", "rollout", "objective", "budget", "optimisation", "x", "rewards.faces"))
        key = rng.choice(
            ("learning_rate", "members", "clip", "max_seconds", "seed", "weight", "x" * 3000, "")
        )
        value = rng.choice(bombs) if rng.random() < 0.4 else json.dumps(hostile(rng))
        return rng.choice((f"{group}.{key}={value}", f"{key}={value}", value))

    def feed(rng: random.Random) -> None:
        path = folder / "recipe.yaml"
        if rng.random() < 0.5:
            path.write_bytes(mutated_bytes(rng.choice(texts), rng))
        else:
            path.write_text(json.dumps(mutated_value(rng.choice(values), rng)), "utf-8")
        given = [override(rng)] if rng.random() < 0.3 else []
        name = str(hostile(rng)) if rng.random() < 0.02 else str(path)
        data = read_recipe(name.replace("\ud800", "?"), given)
        kind = data.pop("kind")
        if kind in kinds:
            build(kinds[kind], data)

    return feed


def presets(folder: Path) -> Feed:
    """Presets of models."""
    from igrpo_sdk.config import ASSETS, Preset

    texts = [path.read_bytes() for path in sorted((ASSETS / "presets").glob("*.json"))]
    values = [json.loads(text) for text in texts]

    def feed(rng: random.Random) -> None:
        path = folder / "preset.json"
        if rng.random() < 0.5:
            path.write_bytes(mutated_bytes(rng.choice(texts), rng))
        else:
            path.write_text(json.dumps(mutated_value(rng.choice(values), rng)), "utf-8")
        Preset.read(path)

    return feed


def adapters(folder: Path) -> Feed:
    """LoRAs under all kinds of names, their heads, settings and information: read, checked, put in."""
    import torch
    from diffusers import WanVACETransformer3DModel
    from safetensors.torch import save

    from igrpo_sdk import WeightsError
    from igrpo_sdk.adapters.info import INFO_FILE
    from igrpo_sdk.adapters.lora import Adapter
    from igrpo_sdk.adapters.read import WEIGHTS_FILE, read_adapter
    from igrpo_sdk.adapters.use import check_fit

    model = WanVACETransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=1,
        vace_layers=[0],
        vace_in_channels=12,
    ).requires_grad_(False)

    class Backbone:
        """What `Adapter` needs of one."""

        transformer, adapter_use = model, None

    backbone: Any = Backbone()
    modules = [f"{block}.{part}" for block in ("blocks.0", "vace_blocks.0") for part in ("to_q", "to_out.0")]
    modules = [module.replace(".to_", ".attn1.to_") for module in modules]
    plain = {
        f"{module}.lora_{part}.weight": torch.ones((2, 24) if part == "A" else (24, 2)) * 0.1
        for module in modules
        for part in "AB"
    }
    types = (
        *(
            "float16",
            "bfloat16",
            "float64",
            "float8_e4m3fn",
            "float8_e5m2",
            "float8_e8m0fnu",
            "int64",
            "bool",
        ),
        *("complex64", "uint16", "int8"),
    )
    names: dict[str, Callable[[str], str]] = {
        "transformer": lambda key: f"transformer.{key}",
        "peft": lambda key: f"base_model.model.{key}",
        "bare": lambda key: key.replace(".weight", ".default.weight"),
        "kohya": lambda key: (
            "lora_unet_" + key.partition(".lora_")[0].replace(".", "_") + key[key.index(".l") :]
        ),
        "original": lambda key: "diffusion_model." + key.replace("attn1.to_q", "self_attn.q"),
    }
    settings = {
        "r": 2,
        "lora_alpha": 2,
        "target_modules": modules,
        "peft_type": "LORA",
        "rank_pattern": {r"blocks\.\d+\.attn1\.to_q": 2},
        "alpha_pattern": {"to_q": 1.5},
        "use_rslora": False,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    information = {
        "schema": 1,
        "base_model": "x/y",
        "reference_order": "reversed",
        "geometry": {"height": 48, "width": 48, "num_frames": 5, "fps": 8.0},
        "noise_levels": [0.0, 1.0],
        "guidance": None,
        "metrics": {"gain": 0.1},
        "made_from": ["a"],
        "steps": 3,
    }
    patterns = (
        "(b+)+!",
        "([a-z0-9_.]+)+!",
        "(a|a)*" * 20,
        "[",
        "(?=x)",
        r"\d" * 5000,
        "((a{64}){64}){64}",
        ".*" * 99,
    )

    def tensors(rng: random.Random) -> dict[str, Any]:
        made = dict(plain)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            key = rng.choice(sorted(made))
            way = rng.randrange(7)
            if way == 0:
                del made[key]
            elif way == 1:
                made[key] = torch.zeros(
                    rng.choice(((), (0, 24), (24, 0), (2, 24, 1), (3, 24), (24, 24), (1,)))
                )
            elif way == 2:
                made[key] = made[key].to(torch.float32) * rng.choice((float("nan"), float("inf"), 1e38, 0.0))
            elif way == 3:
                made[key] = made[key].to(getattr(torch, rng.choice(types)))
            elif way == 4:
                alpha = torch.tensor(rng.choice((2.0, 0.7, 0.0, -1.0, float("nan"), 1e30)))
                made[key.partition(".lora_")[0] + ".alpha"] = alpha.to(getattr(torch, rng.choice(types)))
            elif way == 5:
                strange = ("x", "", "\x1b", "a" * 3000, f"{modules[0]}.diff_b", key + ".x")
                made[rng.choice(strange)] = made[key].clone()
            else:
                kind = getattr(torch, rng.choice(types[:5]))
                made = {name: tensor.to(kind) for name, tensor in made.items()}
        return made

    def feed(rng: random.Random) -> None:
        for path in folder.iterdir():
            path.unlink()
        named = rng.choice(sorted(names))
        said = settings if rng.random() < 0.4 else mutated_value(settings, rng)
        if isinstance(said, dict) and rng.random() < 0.15:
            field = rng.choice(("target_modules", "exclude_modules", "layers_pattern", "rank_pattern"))
            said = {
                **said,
                field: {rng.choice(patterns): 2} if field == "rank_pattern" else rng.choice(patterns),
            }
        text = json.dumps(said)
        head: dict[str, str] = {}
        if named == "transformer":
            packed = (
                {f"transformer.{key}": value for key, value in said.items()}
                if isinstance(said, dict)
                else said
            )
            head["lora_adapter_metadata"] = json.dumps(packed)
        elif rng.random() < 0.5:
            key = rng.choice(
                ("lora_alpha", "ss_network_alpha", "alpha", "transformer.lora_alpha", "use_rslora")
            )
            head[key] = rng.choice(("2", "0.7", "None", "nan", "1e999", "-1", "x" * 999, "9" * 9999, "True"))
        data = save(
            {names[named](key) if ".lora_" in key else key: t for key, t in tensors(rng).items()}, head
        )
        if rng.random() < 0.35:
            length = int.from_bytes(data[:8], "little") + 8
            inside = rng.random() < 0.7
            data = mutated_bytes(data[:length], rng) + data[length:] if inside else mutated_bytes(data, rng)
        (folder / (WEIGHTS_FILE if named != "peft" else "adapter_model.safetensors")).write_bytes(data)
        if named == "peft" or rng.random() < 0.2:
            raw = text.encode()
            (folder / "adapter_config.json").write_bytes(
                raw if rng.random() < 0.7 else mutated_bytes(raw, rng)
            )
        if rng.random() < 0.2:
            (folder / INFO_FILE).write_text(json.dumps(mutated_value(information, rng)), "utf-8")
        before = list(model.state_dict())
        try:
            file = read_adapter(folder)
            check_fit(model, file)
            adapter = Adapter(backbone, file, 1.0)
            loaded = [value for key, value in model.state_dict().items() if ".lora_" in key]
            assert len(loaded) == 2 * len(file.weights)
            assert all(torch.isfinite(value).all() for value in loaded)
            adapter.remove()
        finally:
            if list(model.state_dict()) != before:
                raise AssertionError("the model is not as it was")
        if not all(0 < alpha < 1e7 for alpha in file.alphas.values()):
            raise WeightsError("never")

    return feed


def requests(folder: Path) -> Feed:
    """Requests to the reward server, by the wire's own reading and over HTTP; it answers, and stays."""
    import socket
    import threading

    import torch

    from igrpo_sdk import InputError, Reference
    from igrpo_sdk.training.rewards.base import Rollout
    from igrpo_sdk.training.rewards.server import RewardServer
    from igrpo_sdk.training.rewards.wire import decode_rollouts, encode_rollouts

    class Zero:
        """A reward."""

        name = "zero"

        def score(self, rollouts: Any) -> list[float | None]:
            """0 for each."""
            return [0.0 for rollout in rollouts]

    picture = Reference.load(torch.full((32, 32, 3), 128, dtype=torch.uint8))
    frames = torch.full((2, 16, 16, 3), 128, dtype=torch.uint8)
    rollouts = [Rollout(frames, (picture,), "a person", 0) for _ in range(2)]
    parts = encode_rollouts("zero", rollouts)
    whole, header, pixels = b"".join(parts), json.loads(bytes(parts[1])), b"".join(parts[2:])
    server: Any = RewardServer([Zero()], max_body=2**16, patience=5.0)  # type: ignore[list-item]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(data: bytes, cut: bool) -> bytes:
        with socket.create_connection((server.host, server.port), 9) as client:
            told = b""
            try:
                client.sendall(data)
                if cut:
                    client.shutdown(socket.SHUT_WR)
                while part := client.recv(65536):
                    told += part
            except ConnectionError:
                pass
            return told

    def body(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return mutated_bytes(whole, rng)
        text = json.dumps(mutated_value(header, rng)).encode()
        return len(text).to_bytes(8, "little") + text + pixels

    def feed(rng: random.Random) -> None:
        sent = whole if rng.random() < 0.1 else body(rng)
        if rng.random() < 0.5:
            decode_rollouts(sent)
            return
        request = b"POST /score HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
            sent
        )
        if rng.random() < 0.4:
            request = mutated_bytes(request, rng)
        told = ask(request + sent, cut=True)
        statuses = [line.split()[1] for line in told.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        if any(status.startswith(b"5") and status != b"503" for status in statuses):
            raise AssertionError(f"answered {told[:200]!r}")
        if rng.random() < 0.02:
            assert b" 200 " in ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", cut=False)
        if b"200" not in statuses:
            raise InputError("refused")

    return feed


KINDS: dict[str, Callable[[Path], Feed]] = {
    "adapters": adapters,
    "requests": requests,
    "pictures": pictures,
    "videos": videos,
    "rows": rows,
    "recipes": recipes,
    "presets": presets,
}


# ---- the process that feeds, and the one that watches it


def work(kind: str, seed: int, first: int, last: int) -> None:
    """Feed the inputs from `first` to before `last`; a line to stdout before each, and of each failure."""
    from igrpo_sdk import IgrpoError

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        feed = KINDS[kind](Path(name))
        for number in range(first, last):
            print(f"at {number}", flush=True)
            try:
                feed(random.Random(f"{kind} {seed} {number}"))
                print("fine", flush=True)
            except IgrpoError as error:
                long = len(str(error)) > LONGEST_MESSAGE
                print(f"failed a message of {len(str(error))} characters" if long else "refused", flush=True)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = (
                    f"{type(error).__name__}: {str(error)[:120]} ({Path(where.filename).name}:{where.lineno})"
                )
                print("failed " + " ".join(text.split()), flush=True)
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MOST_MEMORY:
                sys.exit("too much memory")
    print("done", flush=True)


@dataclass
class Outcome:
    """What came of the inputs of a kind: numbers of results and of errors of ours, and what failed."""

    fine: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Inputs in all."""
        return self.fine + self.refused + len(self.failures)


def fuzz(kind: str, count: int, seed: int = 0, first: int = 0, seconds: float = float("inf")) -> Outcome:
    """Feed `count` inputs of a kind from number `first` on, for at most `seconds`."""
    outcome = Outcome()
    number, end = first, time.monotonic() + seconds
    while number < first + count and time.monotonic() < end:
        number = _watch(kind, seed, number, first + count, end, outcome)
    return outcome


def _watch(kind: str, seed: int, first: int, last: int, end: float, outcome: Outcome) -> int:
    """Run one process until it is done, dies, hangs or time is up. Returns the next number."""
    command = [sys.executable, __file__, "--worker", kind, "--seed", str(seed), "--first", str(first)]
    number, begun = first - 1, time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AV_LOG_LEVEL": "quiet"}
    with subprocess.Popen(
        [*command, "--count", str(last - first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdout is not None
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        waiting = b""
        while True:
            limit = START if number < first else LIMIT
            if not selector.select(limit):
                process.kill()
                outcome.failures[max(number, first)] = f"took over {limit:g} s"
                return max(number, first) + 1
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                word, _, rest = line.decode(errors="replace").partition(" ")
                if word == "at":
                    number, begun = int(rest), time.monotonic()
                    continue
                if word == "done":
                    return last
                outcome.slowest = max(outcome.slowest, time.monotonic() - begun)
                outcome.fine += word == "fine"
                outcome.refused += word == "refused"
                if word == "failed":
                    outcome.failures[number] = rest
                if time.monotonic() > end:
                    process.kill()
                    return last
        code = process.wait()
    if number < first:
        raise RuntimeError(
            f"{kind}: the process ended with {code} before its first input; see --worker {kind}"
        )
    outcome.failures[number] = f"the process ended with {code}"
    return number + 1


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each kind")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.seed, given.first, given.first + given.count)
        return 0
    failed = False
    for kind in given.kinds or KINDS:
        begun = time.monotonic()
        outcome = fuzz(kind, given.count, given.seed, given.first, given.seconds)
        failed |= bool(outcome.failures)
        print(
            f"{kind}: {outcome.count:,} inputs in {time.monotonic() - begun:.0f} s, {outcome.fine:,} fine, "
            f"{outcome.refused:,} refused, {len(outcome.failures)} failed, slowest {outcome.slowest:.1f} s"
        )
        for number, failure in sorted(outcome.failures.items()):
            print(f"  {number}: {failure}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
