"""Flow matching of the tiny WanVACETransformer3DModel on cached latents, with the text encoder trained along.

The model sees exactly what diffusers' WanVACEPipeline gives it. With K references and t latent frames the
sequence is K + t frames: the references in REVERSED order, then the video, noised together; the control input
holds, per frame,

    reference slots:  the reference's latent, zeros,                  mask 0
    video slots:      the latent of an all-grey video, twice,         mask 1

The target is the velocity eps - x0 (rectified flow; Liu et al. 2022, arXiv 2209.03003); the reference slots
count little, the heads count more. Batches have one number of people each.

Where the prompt is left out, for guidance, the references are another example's: without a prompt they then
say nothing of the video, and guidance strengthens what the references say along with what the prompt says.

Guidance costs two passes a step. A run with `guided` teaches a model to give in one pass what an earlier run
gives in two (Meng et al. 2023, arXiv 2210.03142, first stage, for one guidance scale): its target is

    v(no prompt) + guided * (v(prompt) - v(no prompt))

of the earlier weights, at the same noise and with the same references in both, as pipelines call them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5EncoderModel

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.backbones.attention import FusibleAttnProcessor
from igrpo_sdk.config import Geometry, check_numbers, check_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.flow import interpolate, velocity_target
from igrpo_sdk.seeds import generator

from ..common.average import Average
from .clips import CLIP
from .growing import refitted_transformer
from .latents import Batch, Encoder, LatentConfig, LatentPool, tokenizer_function
from .loop import Budget, Clock
from .noising import EARLY, FlowLoss, draw_sigmas, model_input, spread_sigmas
from .preview import load_parts, write_preview
from .readout import Readout, ReadoutConfig, targets
from .text import embed_text
from .trainer import Every, Optimisation, make_optimizers, restore, train, trained, write_model


@dataclass(frozen=True)
class FlowModel:
    """Architecture; the names are those of diffusers' WanVACETransformer3DModel."""

    num_attention_heads: int = 4
    attention_head_dim: int = 64
    ffn_dim: int = 704
    num_layers: int = 7
    vace_layers: tuple[int, ...] = (0, 2, 4)
    patch_size: tuple[int, ...] = (1, 3, 3)
    freq_dim: int = 128

    def build(self, vae: AutoencoderKLWan, text_width: int) -> WanVACETransformer3DModel:
        """A transformer with random weights for the latents of `vae` and text embeddings of `text_width`."""
        z, scale = vae.config.z_dim, vae.config.scale_factor_spatial
        model = WanVACETransformer3DModel(
            patch_size=tuple(self.patch_size),
            num_attention_heads=self.num_attention_heads,
            attention_head_dim=self.attention_head_dim,
            in_channels=z,
            out_channels=z,
            text_dim=text_width,
            freq_dim=self.freq_dim,
            ffn_dim=self.ffn_dim,
            num_layers=self.num_layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            vace_layers=list(self.vace_layers),
            vace_in_channels=2 * z + scale * scale,
        )
        nn.init.zeros_(model.proj_out.weight)  # the first guess is 0, the mean of all velocities
        return model


@dataclass(frozen=True)
class FlowRecipe:
    """One training run of the transformer and the text encoder."""

    budget: Budget
    vae: str
    """Directory of a trained VAE (`.../vae`)."""
    text: str
    """Directory with a trained `tokenizer` and `text_encoder`."""
    hardware: str = ""
    seed: int = 0
    clip: Geometry = CLIP
    latents: LatentConfig = field(default_factory=LatentConfig)
    model: FlowModel = field(default_factory=FlowModel)
    loss: FlowLoss = field(default_factory=FlowLoss)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    batch: int = 128
    optimisation: Optimisation = field(default_factory=Optimisation)
    every: Every = field(default_factory=Every)
    half: bool = True
    """bfloat16 autocast on a GPU."""
    compile: bool = True
    """Compile the transformer's blocks on a GPU."""
    record: bool = True
    """Run forward and backward passes as CUDA graphs on a GPU."""
    init_from: str | None = None
    """Directory with `transformer` and `text_encoder` of an earlier run: weights only, all else anew. Its
    patches may be larger and its latent channels fewer; the transformer's blocks must be those of `model`."""
    guided: float | None = None
    """Guidance scale that is distilled from `init_from` into one pass; None learns from the clips."""
    held_out: int = 128
    """Validation clips per number of people."""
    previews: int = 6
    """Videos made at the end, side by side in `samples.png`; 0 for none."""

    def __post_init__(self) -> None:
        check_numbers(self, "recipe")
        check_seed(self.seed)
        if min(self.batch, self.held_out) < 1 or self.previews < 0:
            raise InputError("batch and held_out must be at least 1, previews at least 0")
        if self.guided is not None and (self.init_from is None or self.loss.drop_text > 0):
            raise InputError("guided needs init_from, the teacher, and loss.drop_text=0: every prompt counts")


def train_flow(recipe: FlowRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Train; writes averaged `transformer` and `text_encoder` (float16) and the `tokenizer` to `output`.

    Resuming, initialising, errors: as `train_vae`.
    """
    clock = Clock(recipe.budget)
    task = FlowTask(recipe, pick_device(device))
    optimizers = make_optimizers(recipe.optimisation, task.matrices(), task.other_parameters())
    restore(task, optimizers, clock, output, resume)
    clock.start()
    print(f"[data] {task.num_clips} clips cached after {clock.process_seconds:.1f} s", flush=True)
    train(
        task, optimizers, clock, recipe.optimisation.clip_norm, recipe.every, output, task.record, task.export
    )
    task.export(output)
    if recipe.previews:
        guidance = 2.0 if recipe.guided is None else 1.0  # a distilled model is guided as it is
        pipe = load_parts(
            Path(recipe.vae), output, recipe.loss.shift, guidance, recipe.clip, str(task.device)
        )
        write_preview(pipe, recipe.previews, output)
    return output


class FlowTask:
    """Transformer and text encoder, the cached latents, and the flow-matching loss."""

    def __init__(self, recipe: FlowRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        gpu = device.type == "cuda"
        torch.manual_seed(recipe.seed)
        weights, vae = trained(recipe.init_from or recipe.text), trained(recipe.vae)
        self.tokenizer = AutoTokenizer.from_pretrained(trained(recipe.text) / "tokenizer")
        self.text_encoder = UMT5EncoderModel.from_pretrained(
            weights / "text_encoder", dtype=torch.float32
        ).to(device)
        self.encoder = Encoder(AutoencoderKLWan.from_pretrained(vae, dtype=torch.float32), device, gpu)
        if recipe.init_from is not None:
            earlier = WanVACETransformer3DModel.from_pretrained(weights / "transformer", dtype=torch.float32)
            self.transformer = self._going_on_from(earlier)
        else:
            self.transformer = recipe.model.build(self.encoder.vae, self.text_encoder.config.d_model)
        self.transformer = self.transformer.float().to(device).train()
        self.transformer.set_attn_processor(FusibleAttnProcessor())
        self.text_encoder.train()
        self.teacher = None if recipe.guided is None else self._make_teacher()
        self.modules: Mapping[str, nn.Module] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
        }
        self.readout = self._make_readout()
        if self.readout is not None:
            self.modules = {**self.modules, "readout": self.readout}
        self.average = Average(self.modules, recipe.optimisation.average)
        self.half = recipe.half and gpu
        self.record = recipe.record and gpu
        self._load_data()
        if recipe.compile and gpu:
            torch._dynamo.config.recompile_limit = 64
            self.transformer.compile_repeated_blocks(fullgraph=True)
            if self.teacher is not None:
                self.teacher[0].compile_repeated_blocks(fullgraph=True)

    def _going_on_from(self, earlier: WanVACETransformer3DModel) -> WanVACETransformer3DModel:
        """The earlier transformer, refitted where the recipe's patches or the VAE's channels are others."""
        vae, patch = self.encoder.vae.config, tuple(self.recipe.model.patch_size)
        if (tuple(earlier.config.patch_size), earlier.config.in_channels) == (patch, vae.z_dim):
            return earlier
        made = self.recipe.model.build(self.encoder.vae, self.text_encoder.config.d_model)
        mask = vae.scale_factor_spatial**2
        try:
            made.load_state_dict(refitted_transformer(earlier.state_dict(), patch[1], vae.z_dim, mask))
        except RuntimeError as error:
            raise InputError(
                f"init_from={self.recipe.init_from}: model must have its sizes ({error})"
            ) from None
        return made

    def _make_teacher(self) -> tuple[WanVACETransformer3DModel, UMT5EncoderModel]:
        """Frozen copies of the transformer and the text encoder as they are now."""
        transformer = WanVACETransformer3DModel.from_config(self.transformer.config)
        transformer.load_state_dict(self.transformer.state_dict())
        transformer.set_attn_processor(FusibleAttnProcessor())
        text_encoder = UMT5EncoderModel(self.text_encoder.config)
        text_encoder.load_state_dict(self.text_encoder.state_dict())
        frozen = (transformer, text_encoder)
        for module in frozen:
            module.requires_grad_(False).eval().to(self.device)
        return frozen

    def _make_readout(self) -> Readout | None:
        asked, blocks = self.recipe.readout, self.transformer.blocks
        if asked.weight == 0:
            return None
        if max(asked.blocks) >= len(blocks):
            raise InputError(f"readout.blocks={asked.blocks}: the transformer has {len(blocks)} blocks")
        width = self.transformer.proj_out.in_features
        return Readout([blocks[i] for i in asked.blocks], width).to(self.device)

    def _load_data(self) -> None:
        tokenize = tokenizer_function(self.tokenizer)
        config, clip, encoder = self.recipe.latents, self.recipe.clip, self.encoder
        counts = {k: config.count(k) for k in range(1, len(config.odds) + 1)}
        held = -(-self.recipe.held_out // config.chunk) * config.chunk
        self.held_out = {
            k: LatentPool(config, clip, k, held, "validation", encoder, tokenize) for k in counts
        }
        self.pools = {
            k: LatentPool(config, clip, k, n, "train", encoder, tokenize) for k, n in counts.items()
        }
        self.num_clips = sum(map(len, self.pools.values()))
        self.grey = encoder.grey(clip)
        self.empty = tokenize([""]).to(self.device).long()
        self._odds = torch.tensor(config.odds)

    def matrices(self) -> list[nn.Parameter]:
        """2-D weights inside the transformer's blocks, those Muon is made for."""
        return [p for p in self._block_parameters() if p.ndim == 2]

    def other_parameters(self) -> list[nn.Parameter]:
        """Everything else that is trained."""
        matrices = {id(p) for p in self.matrices()}
        every = (p for module in self.modules.values() for p in module.parameters())
        return [p for p in every if id(p) not in matrices]

    def _block_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.transformer.blocks.parameters()
        yield from self.transformer.vace_blocks.parameters()

    def draw(self, step: int, progress: float) -> dict[str, Tensor]:
        """One batch of clips with the same number of people, drawn by the odds, and the step's noise."""
        self._renew(step)
        recipe, seed = self.recipe, (self.recipe.seed, "step", step)
        random = generator(torch.device("cpu"), *seed, "people")
        people = int(torch.multinomial(self._odds, 1, generator=random)) + 1
        dropped = torch.rand(recipe.batch, generator=random).to(self.device) < recipe.loss.drop_text
        batch = self.pools[people].sample(recipe.batch, *seed).without_prompt(dropped, self.empty)
        sigma = draw_sigmas(recipe.batch, recipe.loss, random).to(self.device)
        return self._noised(batch, sigma, generator(self.device, *seed, "noise"))

    def _renew(self, step: int) -> None:
        """Renew the pools, each in proportion to its size."""
        every = self.recipe.latents.renew_every
        if every:
            total = sum(pool.num_chunks for pool in self.pools.values())
            for pool in self.pools.values():
                pool.renew(step // every * pool.num_chunks // total)

    def _noised(self, batch: Batch, sigma: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        x0, control = model_input(batch, self.grey, self.transformer.config.vace_in_channels)
        eps = torch.randn(x0.shape, generator=random, device=self.device)
        noised = {
            "x": interpolate(x0, eps, sigma.view(-1, 1, 1, 1, 1)), "target": velocity_target(x0, eps),
            "control": control, "sigma": sigma, "tokens": batch.tokens, "heads": batch.heads.float(),
        }  # fmt: skip
        if self.readout is not None:
            patch = self.transformer.config.patch_size[1]
            grid = (x0.shape[3] // patch, x0.shape[4] // patch)
            token = patch * self.encoder.vae.config.scale_factor_spatial
            noised["told"], noised["counts"] = targets(batch.truth, grid, token)
        return noised

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error of the velocity; reference slots come first in time and weigh little."""
        target = batch["target"] if self.teacher is None else self._guided_target(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            velocity = _velocity(self.transformer, self.text_encoder, batch, batch["tokens"])
            told = None if self.readout is None else self.readout.loss(batch["told"], batch["counts"])
        error = (velocity - target).square().mean(1)  # [B, K + t, h, w]
        heads = batch["heads"]
        references, video = error.split([error.shape[1] - heads.shape[1], heads.shape[1]], dim=1)
        weight = 1 + self.recipe.loss.head * heads
        loss = (video * weight).sum() / weight.sum() + self.recipe.loss.reference * references.mean()
        head = (video * heads).sum() / heads.sum().clamp(min=1)
        terms = {"video": video.mean(), "head": head, "reference": references.mean()}
        if told is not None:
            terms["readout"], loss = told, loss + self.recipe.readout.weight * told
        return loss, {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def _guided_target(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What guidance makes of the teacher's velocities with and without the prompt."""
        assert self.teacher is not None and self.recipe.guided is not None
        empty = self.empty.expand(len(batch["tokens"]), -1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            told, untold = (_velocity(*self.teacher, batch, tokens) for tokens in (batch["tokens"], empty))
        return torch.lerp(untold, told, self.recipe.guided)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss of the averaged weights on held-out people, at fixed noise and evenly spread noise levels.

        Of a distillation, by how much it misses its teacher. Otherwise also
        `binding`: by how much the loss at heads grows when the references of a clip change places, and
        `identity`: when they are those of another clip; 0 for a model that does not look. Both at one
        noise level: `binding` at 1 - EARLY / 2, `identity` at 0.8.
        """
        totals: dict[str, list[float]] = {}
        # a compilation for evaluating alone would take longer than it saves
        with self.average.applied(), torch.compiler.set_stance("force_eager"):
            for people, pool in self.held_out.items():
                batch = pool.sample(min(self.recipe.batch, len(pool)), "held-out")
                spread = spread_sigmas(len(batch.video), self.recipe.loss.shift)
                terms = self._held_out_terms(batch, people, spread)
                if self.teacher is None:
                    terms["identity"] = self._lost_with(batch, people, 0.8, other_clip=True)
                if self.teacher is None and people > 1:
                    terms["binding"] = self._lost_with(batch, people, 1 - EARLY / 2, other_clip=False)
                for name, value in terms.items():
                    totals.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in totals.items()}

    def _lost_with(self, batch: Batch, people: int, level: float, other_clip: bool) -> float:
        """Growth of the loss at heads with the references of the next clip, or of the next place."""
        sigma = torch.full((len(batch.video),), level)
        wrong = replace(batch, references=batch.references.roll(1, dims=0 if other_clip else 1))
        right, lost = (self._held_out_terms(b, people, sigma)["head"] for b in (batch, wrong))
        return lost - right

    def _held_out_terms(self, batch: Batch, people: int, sigma: Tensor) -> dict[str, float]:
        noise = generator(self.device, "held-out", people)
        loss, terms = self.loss(self._noised(batch, sigma.to(self.device), noise))
        return {"loss": float(loss), **{name: float(value) for name, value in terms.items()}}

    def export(self, output: Path) -> Path:
        """Write `transformer`, `text_encoder` (averaged weights, float16) and `tokenizer` under `output`."""
        with self.average.applied():
            transformer = WanVACETransformer3DModel.from_config(self.transformer.config)
            transformer.load_state_dict(self.transformer.state_dict())
            text_encoder = UMT5EncoderModel(self.text_encoder.config)
            text_encoder.load_state_dict(self.text_encoder.state_dict())
        write_model(transformer.half(), output / "transformer")
        write_model(text_encoder.half(), output / "text_encoder")
        self.tokenizer.save_pretrained(output / "tokenizer")
        return output


def _velocity(
    transformer: WanVACETransformer3DModel,
    text_encoder: UMT5EncoderModel,
    batch: Mapping[str, Tensor],
    tokens: Tensor,
) -> Tensor:
    """The velocity [B, z, K + t, h, w] of a batch with the prompts `tokens`, float32."""
    made: Tensor = transformer(
        hidden_states=batch["x"],
        timestep=batch["sigma"] * 1000,
        encoder_hidden_states=embed_text(text_encoder, tokens),
        control_hidden_states=batch["control"],
        return_dict=False,
    )[0]
    return made.float()
