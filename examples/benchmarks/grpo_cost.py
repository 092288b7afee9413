r"""What a training video costs at full size, on random weights: the numbers of docs/results/grpo_cost.json.

    python examples/benchmarks/grpo_cost.py measure
    torchrun --nproc_per_node 2 examples/benchmarks/grpo_cost.py scale
    torchrun --nproc_per_node 2 examples/benchmarks/grpo_cost.py scale --recipe vace_14b_fsdp --chunks 1

The architecture of VACE-1.3B, or 14B, with random weights, 2 references, as each recipe says: rollouts,
decoding, and all trained steps. `measure` takes chunk by chunk in one process, after one that is not counted;
`scale` takes updates with all processes, each its own groups, after one that is not counted, and with
one. The time of rewards is not in it, nor is the text encoder's, which is a small one of the right width:
prompts are encoded once a group. What a command measures is added to the file, with where and when it ran.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from jsonargparse import auto_cli
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.config import ASSETS, GenerationConfig, Geometry, Preset
from igrpo_sdk.errors import InputError
from igrpo_sdk.media.files import read_json
from igrpo_sdk.references import Reference
from igrpo_sdk.training.evaluation.results import commit, hardware, write_results
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.policy.model import prepare_transformer
from igrpo_sdk.training.policy.processes import Processes
from igrpo_sdk.training.policy.prompts import Prompt
from igrpo_sdk.training.policy.rollout import Chunk, Group, encode_groups, make_chunks
from igrpo_sdk.training.policy.update import Learner, Sums

PROGRAM = "examples/benchmarks/grpo_cost.py"
OFFICIAL = 30.9
"""Seconds per training video of the official code, measured stage by stage on one H100, random weights."""
FULL = {
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30,
    "vace_layers": list(range(0, 30, 2)), "text_dim": 4096, "freq_dim": 256, "vace_in_channels": 96,
}  # fmt: skip
"""VACE-1.3B, in the names of diffusers' WanVACETransformer3DModel; the rest are its defaults."""
FULL_14B = FULL | {
    "num_attention_heads": 40,
    "ffn_dim": 13824,
    "num_layers": 40,
    "vace_layers": list(range(0, 40, 5)),
}
"""VACE-14B."""
TOY = {
    "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2, "vace_layers": [0],
    "text_dim": 4096, "freq_dim": 16, "vace_in_channels": 96,
}  # fmt: skip
"""For trying the command out on a CPU."""
TOY_VAE = {"base_dim": 8}
TOY_GEOMETRY = Geometry(48, 64, 5)


@dataclass(frozen=True)
class Cost:
    """Seconds of one video: its rollout with decoding, its training; and the most GPU memory, GiB."""

    rollout_s: float
    training_s: float
    peak_gib: float

    @property
    def total_s(self) -> float:
        """Of both."""
        return self.rollout_s + self.training_s


def random_pipeline(
    architecture: dict[str, Any], vae_changes: dict[str, Any], preset: Preset, device: str, dtype: torch.dtype
) -> Any:
    """A pipeline with random weights and Wan's VAE, changed or not; its tokenizer is tiny-vace's."""
    torch.set_default_dtype(dtype)  # 14B parameters of float32 would fill the GPU before they are cast
    try:
        with torch.device(device):
            transformer = WanVACETransformer3DModel(**architecture)
            text = UMT5Config(vocab_size=512, d_model=4096, d_kv=64, d_ff=512, num_layers=1, num_heads=8)
            encoder = UMT5EncoderModel(text)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device(device):
        vae = AutoencoderKLWan(**vae_changes)
    for name, parameter in transformer.named_parameters():  # as from_pretrained(dtype=...) would load them
        if any(part in name.split(".") for part in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    return IdentityPipeline.from_components(
        transformer=transformer,
        vae=vae,
        text_encoder=encoder,
        tokenizer=AutoTokenizer.from_pretrained(ASSETS / "tiny-vace" / "tokenizer"),
        preset=preset,
    )


@dataclass(frozen=True)
class Bench:
    """A recipe with a model of random weights."""

    recipe: PolicyRecipe
    pipe: IdentityPipeline
    settings: GenerationConfig
    parameters: list[torch.nn.Parameter]
    learner: Learner

    @classmethod
    def make(cls, name: str, processes: Processes, toy: bool) -> Bench:
        """The recipe `name`, its model as the trainer sets it up; a toy is not compiled, and in float32."""
        recipe = read_policy_recipe(name, ("compile=false", "dtype=float32") if toy else ())
        geometry = TOY_GEOMETRY if toy else recipe.geometry
        assert geometry is not None
        preset = replace(Preset.load(recipe.model), geometry=geometry)
        size = TOY if toy else FULL_14B if "14b" in recipe.model else FULL
        device, dtype = str(processes.device), getattr(torch, recipe.dtype)
        pipe = random_pipeline(size, TOY_VAE if toy else {}, preset, device, dtype)
        pipe.backbone.adapter_use = recipe.lora.use
        parameters = prepare_transformer(pipe.backbone, recipe, processes)
        settings = recipe.rollout.settings(preset)
        exact = recipe.update.updates == 1
        learner = Learner(pipe.backbone, recipe.objective, settings.guidance, exact)
        return cls(recipe, pipe, settings, parameters, learner)

    def roll(self, number: int) -> Iterator[Chunk]:
        """The chunks of one group, as they are asked for."""
        recipe, pipe, settings = self.recipe, self.pipe, self.settings
        window = recipe.window_of(0, settings.steps)
        generator = np.random.default_rng(0)
        people = [Reference.load(generator.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(2)]
        group = Group(number, Prompt(tuple(people), "two people talk"))
        encoded = encode_groups(pipe.backbone, settings, [group])
        return make_chunks(pipe.backbone, pipe.preset, recipe.rollout, settings, encoded, window, 0)

    def train(self, chunk: Chunk) -> None:
        """The gradient of a chunk."""
        videos, objective = len(chunk.rows), self.recipe.objective
        advantages = torch.linspace(-1, 1, videos, dtype=torch.float64)
        if objective.by_steps:
            self.learner.grpo(chunk, advantages, videos * len(chunk.trajectory.transitions), Sums())
        else:
            faces = torch.ones(chunk.trajectory.video_latents[:, 0].shape) if objective.face_credit else None
            self.learner.matching(chunk, range(videos), advantages, videos * objective.draws, Sums(), faces)

    def cost(self, videos: int) -> Cost:
        """The cost of a video, over `videos` of them, after one chunk that is not counted."""
        seconds, batch = {"roll": 0.0, "train": 0.0}, self.recipe.rollout.batch
        if videos < batch or videos % batch:
            raise InputError(f"videos={videos} must be a multiple of the recipe's batch of {batch}")
        for number in range(videos // batch + 1):
            start = time.monotonic()
            chunk = next(self.roll(number))
            _wait()
            middle = time.monotonic()
            self.train(chunk)
            _wait()
            if number:
                seconds["roll"] += middle - start
                seconds["train"] += time.monotonic() - middle
        made = videos // batch * batch
        return Cost(seconds["roll"] / made, seconds["train"] / made, peak_gib())


def peak_gib(reset: bool = False) -> float:
    """The most GPU memory so far, or since the last `reset`, GiB; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**30
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return peak


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(
    results: str = "docs/results/grpo_cost.json",
    recipes: Sequence[str] = ("vace_1_3b_paper", "vace_1_3b_fast"),
    videos: int = 8,
    device: str = "cuda",
    toy: bool = False,
) -> None:
    """Measure each recipe and write the seconds.

    Args:
        results: JSON file for the numbers.
        recipes: names of policy recipes.
        videos: videos of each, a multiple of their batch.
        device: "cuda", or "cpu" with `toy`.
        toy: a toy architecture, to try the command out.
    """
    processes, metrics = _processes(device), dict[str, Any]()
    for name in recipes:
        torch.compiler.reset()  # another batch is another shape: kernels for any shape would be slower
        peak_gib(reset=True)
        found, short = Bench.make(name, processes, toy).cost(videos), _short(name)
        print(name, found, flush=True)
        metrics[f"{short}_s_per_video"] = round(found.total_s, 3)
        metrics[f"{short}_of_official"] = round(found.total_s / OFFICIAL, 4)
        metrics |= {f"{short}_{part}": round(value, 3) for part, value in asdict(found).items()}
    listed = json.dumps(list(recipes))
    _add(results, f"python {PROGRAM} measure --recipes '{listed}' --videos {videos}", metrics, toy)


def scale(
    results: str = "docs/results/grpo_cost.json",
    recipe: str = "vace_1_3b_fast",
    updates: int = 2,
    chunks: int | None = None,
    device: str = "cuda",
    toy: bool = False,
) -> None:
    """Measure updates with all processes, a group for each, and write videos a second and memory.

    Then with the first alone, so that both are of one machine; not of a sharded recipe, which needs all.

    Args:
        results: JSON file for the numbers.
        recipe: name of a policy recipe.
        updates: how many are counted.
        chunks: of each group; None for the whole group.
        device: "cuda", or "cpu" with `toy`.
        toy: a toy architecture, to try the command out.
    """
    processes = _processes(device)
    bench = Bench.make(recipe, processes, toy)
    _update(bench, processes, 0, chunks)  # not counted
    first_peak = max(processes.gather([peak_gib(reset=True)]))
    rates = {processes.count: _rate(bench, processes, updates, chunks)}
    peak = max(processes.gather([peak_gib()]))
    if processes.count > 1 and not bench.recipe.sharded:
        rates[1] = _rate(bench, processes, updates, chunks, alone=True)
    if not processes.first:
        return
    print(recipe, "videos a second by processes:", rates, peak, "GiB", flush=True)
    short = _short(recipe)
    metrics = {f"{short}_videos_per_s_{count}": round(rate, 4) for count, rate in rates.items()}
    if bench.recipe.sharded:
        metrics |= {f"{short}_peak_gib": round(max(first_peak, peak), 2)}
        metrics |= {f"{short}_step_peak_gib": round(peak, 2)}
    if rates.keys() == {1, 2}:
        metrics["two_gpu_speedup"] = round(rates[2] / rates[1], 3)
    start_with = "python" if processes.count == 1 else f"torchrun --nproc_per_node {processes.count}"
    command = f"{start_with} {PROGRAM} scale --recipe {recipe} --updates {updates}"
    _add(results, f"{command} --chunks {chunks}" if chunks else command, metrics, toy)


def _rate(bench: Bench, processes: Processes, updates: int, chunks: int | None, alone: bool = False) -> float:
    """Videos a second of all processes, or of the first alone while the others wait."""
    processes.wait()
    start, videos = time.monotonic(), 0
    for update in range(updates):
        if processes.first or not alone:
            videos += _update(bench, None if alone else processes, update, chunks)
    made = sum(processes.gather([videos]))
    return made / (time.monotonic() - start)


def _update(bench: Bench, processes: Processes | None, number: int, chunks: int | None) -> int:
    """One update with a group for each process, or for this one alone; the videos that this one made."""
    videos, own = 0, number if processes is None else number * processes.count + processes.rank
    for chunk in islice(bench.roll(own), chunks):
        bench.train(chunk)
        videos += len(chunk.rows)
    if processes is not None:
        processes.sum_gradients(bench.parameters)
    _wait()
    return videos


def _processes(device: str) -> Processes:
    """Which wait for each other as long as one compiles, or is measured alone."""
    return Processes(device, longest=900.0)


def _short(recipe: str) -> str:
    """What a recipe is called among the numbers: paper, fast, fsdp_14b."""
    return "fsdp_14b" if recipe == "vace_14b_fsdp" else recipe.rsplit("_", 1)[-1]


def _add(results: str, command: str, metrics: dict[str, Any], toy: bool) -> None:
    """Write the numbers, with those that other commands left; notes say where and when each one ran."""
    path = Path(results)
    before: dict[str, Any] = {"command": "", "metrics": {}, "notes": []}
    if path.is_file():
        before = read_json(path)
    if any(name.startswith("fast_videos_per_s") for name in metrics):  # the ratio of one run, or none
        before["metrics"].pop("two_gpu_speedup", None)
    commands = list(dict.fromkeys([*filter(None, before["command"].split(" && ")), command]))
    ran = {one: note for note in before["notes"] for one in commands if note.startswith(f"{one}: ")}
    ran[command] = f"{command}: {hardware()}; {datetime.date.today()}; commit {commit()}"
    where = [note.rsplit(": ", 1)[1].split("; ")[0] for note in ran.values()]
    size = "a toy: no numbers to publish" if toy else "240x416x33, 2 references"
    notes = [
        f"Random weights ({size}); without rewards and the 5.7B text encoder. "
        f"The released code's {OFFICIAL} s are an H100's.",
        *ran.values(),
    ]
    joined = "; ".join(dict.fromkeys(where))
    write_results(path, " && ".join(commands), joined, before["metrics"] | metrics, notes)


if __name__ == "__main__":
    auto_cli([measure, scale], as_positional=False)
