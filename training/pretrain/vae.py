"""Training of the tiny Wan VAE on rendered people.

Crops around heads teach most of the detail at a sixth of the cost of whole clips, so the run starts with
crops of a few frames and ends with whole clips; close-ups of single people are in every step, because
references pass through the same VAE. Latents are scaled afterwards: the mean and deviation of every channel
go into the config, where pipelines read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.backbones.vae import decode_sequence, encode_sequence
from igrpo_sdk.config import Geometry, check_numbers, check_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import generator

from ..common.average import Average
from .clips import CLIP, ClipPool, PoolConfig, Windows
from .faces.alignment import template
from .faces.likeness import load_likeness, unlikeness
from .growing import grown_vae
from .loop import Budget, Clock
from .trainer import Every, Optimisation, make_optimizers, restore, train, trained, write_model


@dataclass(frozen=True)
class VaeModel:
    """Architecture, named as in diffusers' AutoencoderKLWan; Wan 2.1 style unless `is_residual`."""

    base_dim: int = 32
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 2)
    num_res_blocks: int = 1
    temperal_downsample: tuple[bool, ...] = (True, True)
    is_residual: bool = False
    patch_size: int | None = None

    def __post_init__(self) -> None:
        if len(self.temperal_downsample) != len(self.dim_mult) - 1 or sum(self.temperal_downsample) != 2:
            raise InputError(
                f"{self}: needs one temperal_downsample between dim_mults, two of them true (4x in time)"
            )

    @property
    def spatial_scale(self) -> int:
        """Pixels per latent cell, along height and width."""
        return (self.patch_size or 1) << (len(self.dim_mult) - 1)

    def build(self) -> AutoencoderKLWan:
        """A VAE with random weights; latents are not scaled yet (mean 0, deviation 1)."""
        patch = self.patch_size or 1
        return AutoencoderKLWan(
            base_dim=self.base_dim,
            z_dim=self.z_dim,
            dim_mult=list(self.dim_mult),
            num_res_blocks=self.num_res_blocks,
            temperal_downsample=list(self.temperal_downsample),
            is_residual=self.is_residual,
            in_channels=3 * patch * patch,
            out_channels=3 * patch * patch,
            patch_size=self.patch_size,
            scale_factor_temporal=4,
            scale_factor_spatial=self.spatial_scale,
            latents_mean=[0.0] * self.z_dim,
            latents_std=[1.0] * self.z_dim,
        )


@dataclass(frozen=True)
class VaeLoss:
    """Weights of the loss beside the plain absolute error."""

    detail: float = 1.0
    """Absolute error of differences between neighbouring pixels, which keeps edges sharp."""
    head: float = 2.0
    """Extra weight of pixels in head boxes."""
    kl: float = 3e-4
    """Divergence from a standard normal, mean over latent values. It lets latents carry noise as long as that
    costs little error, which makes the decoder forgiving."""
    features: float = 0.0
    """Distance of the features that a recogniser finds in faces, see `faces.likeness`."""
    identity: float = 0.0
    """1 - cosine of the embeddings of faces."""
    faces: int = 8
    """Faces compared in each window or clip, from all its frames and people."""
    first_frame: float = 0.25
    """How likely a face of the first frame is compared beside one of a later frame. The first frame is a
    latent frame of its own and sharp without help."""

    def __post_init__(self) -> None:
        check_numbers(self, "loss")
        if min(self.features, self.identity, self.first_frame) < 0 or self.faces < 1:
            raise InputError(f"{self}: needs weights of at least 0 and at least one face")

    @property
    def sees_faces(self) -> bool:
        """True when a recogniser is needed."""
        return max(self.features, self.identity) > 0


@dataclass(frozen=True)
class VaeBatch:
    """What one step sees."""

    crop: int = 96
    crop_frames: int = 9
    crops: int = 64
    clips: int = 12
    """Whole clips a step, once crops are over."""
    stills: int = 16
    whole_from: float = 0.7
    """Share of the run after which whole clips replace crops."""

    def __post_init__(self) -> None:
        if min(self.crops, self.clips, self.stills) < 1 or not 0 <= self.whole_from <= 1:
            raise InputError(f"{self}: needs at least one of everything and 0 <= whole_from <= 1")


@dataclass(frozen=True)
class VaeRecipe:
    """One training run of the VAE."""

    budget: Budget
    hardware: str = ""
    """Where and how long this was measured."""
    seed: int = 0
    clip: Geometry = CLIP
    pool: PoolConfig = field(default_factory=PoolConfig)
    model: VaeModel = field(default_factory=VaeModel)
    batch: VaeBatch = field(default_factory=VaeBatch)
    loss: VaeLoss = field(default_factory=VaeLoss)
    optimisation: Optimisation = field(default_factory=Optimisation)
    every: Every = field(default_factory=Every)
    half: bool = True
    """bfloat16 autocast on a GPU."""
    record: bool = True
    """Run forward and backward passes as CUDA graphs on a GPU."""
    init_from: str | None = None
    """Directory with weights of an earlier run to start from; they may have fewer latent channels."""
    likeness: str | None = None
    """Directory of a run of tiny_likeness, needed where the loss sees faces."""
    eval_clips: int = 16
    eval_stills: int = 32
    stats_clips: int = 256
    """Clips over which the latents' mean and deviation are taken."""

    def __post_init__(self) -> None:
        check_numbers(self, "recipe")
        check_seed(self.seed)
        if self.stats_clips < 1:
            raise InputError(f"stats_clips={self.stats_clips} must be at least 1")
        if self.loss.sees_faces and self.likeness is None:
            raise InputError(
                "loss.features and loss.identity need likeness, the folder of a tiny_likeness run"
            )
        whole, cell = self.clip, self.model.spatial_scale
        crop = Geometry(self.batch.crop, self.batch.crop, self.batch.crop_frames)
        for name, size in (("clip", whole), ("batch.crop, crop_frames", crop)):
            try:  # a window that does not fit into its clip would wrap around
                size.check((cell, cell), 4, (whole.num_frames, whole.height, whole.width))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None


def train_vae(recipe: VaeRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Train, evaluate and write the averaged VAE to `output/vae` (float16); returns that directory.

    Checkpoints go to `output/checkpoints`, numbers to `output/metrics.jsonl`. A run that used up
    `budget.call_seconds` writes its current weights too and goes on with resume="auto". Raises NumericsError
    when a loss or a gradient is not finite.
    """
    clock = Clock(recipe.budget)
    task = VaeTask(recipe, pick_device(device))
    optimizers = make_optimizers(recipe.optimisation, [], task.vae.parameters())
    restore(task, optimizers, clock, output, resume)
    clock.start()
    train(task, optimizers, clock, recipe.optimisation.clip_norm, recipe.every, output, task.record)
    return task.export(output)


class VaeTask:
    """The VAE, its clips and its loss."""

    def __init__(self, recipe: VaeRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        self.vae = recipe.model.build().to(device)
        if recipe.init_from is not None:
            earlier = AutoencoderKLWan.from_pretrained(trained(recipe.init_from), dtype=torch.float32)
            random = generator(torch.device("cpu"), recipe.seed, "growing")
            self.vae.load_state_dict(grown_vae(earlier.state_dict(), recipe.model.z_dim, random))
        self.likeness = load_likeness(recipe.likeness, device) if recipe.likeness is not None else None
        gpu = device.type == "cuda"
        if gpu:
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.half = recipe.half and gpu
        self.record = recipe.record and gpu
        self.modules: Mapping[str, nn.Module] = {"vae": self.vae}
        self.average = Average(self.modules, recipe.optimisation.average)
        self.pool = ClipPool(recipe.pool, recipe.clip, "train", recipe.seed, device)
        held = PoolConfig(recipe.eval_clips, recipe.eval_stills, groups=1, initial_groups=1)
        self.held_out = ClipPool(held, recipe.clip, "validation", recipe.seed, device)
        self.held_out.advance(0)

    def draw(self, step: int, progress: float) -> dict[str, Tensor]:
        """Clips, their heads and close-ups of one step, and the posterior's noise for both."""
        recipe, clip, batch = self.recipe, self.recipe.clip, self.recipe.batch
        self.pool.advance(step)
        seed = (recipe.seed, "step", step)
        if progress >= batch.whole_from:
            windows = self.pool.sample(batch.clips, clip.num_frames, clip.height, clip.width, *seed)
        else:
            windows = self.pool.sample(batch.crops, batch.crop_frames, batch.crop, batch.crop, *seed)
        stills = self.pool.sample_stills(batch.stills, *seed, "still")
        random = generator(self.device, *seed, "noise")
        noises = [
            torch.randn(self._latent_shape(v), generator=random, device=self.device)
            for v in (windows.video, stills)
        ]
        drawn = {
            "video": windows.video,
            "heads": windows.heads,
            "stills": stills,
            "noise": noises[0],
            "still_noise": noises[1],
        }
        return drawn | (choose_faces(windows, recipe.loss, random) if self.likeness is not None else {})

    def _latent_shape(self, video: Tensor) -> tuple[int, ...]:
        scale = self.vae.config.scale_factor_spatial
        count, _, frames, height, width = video.shape
        return count, self.recipe.model.z_dim, (frames - 1) // 4 + 1, height // scale, width // scale

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one step's clips and close-ups, and its terms."""
        made, video_loss, video_terms = self._reconstruct(batch["video"], batch["heads"], batch["noise"])
        _, still_loss, still_terms = self._reconstruct(batch["stills"], None, batch["still_noise"])
        terms = {f"video_{k}": v for k, v in video_terms.items()} | {
            f"still_{k}": v for k, v in still_terms.items()
        }
        loss = video_loss + still_loss
        if self.likeness is not None:
            features, identity = self._unlike(made, batch)
            loss = loss + self.recipe.loss.features * features + self.recipe.loss.identity * identity
            terms |= {"face_features": features.detach(), "face_identity": identity.detach()}
        return loss, terms

    def _unlike(self, made: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean unlikeness of the chosen faces, in features and in identity."""
        assert self.likeness is not None
        first = torch.arange(len(made), device=self.device)[:, None] * made.shape[2]
        rows = (first + batch["face_frames"]).flatten()
        ours, theirs = (
            video.transpose(1, 2).flatten(0, 1).index_select(0, rows) for video in (made, batch["video"])
        )
        found = unlikeness(self.likeness, ours, theirs, batch["face_points"].flatten(0, 1))
        weight = batch["face_weights"].flatten()
        total = weight.sum().clamp(min=1)
        return (found.features * weight).sum() / total, (found.identity * weight).sum() / total

    def _reconstruct(
        self, video: Tensor, heads: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The decoded video, its loss and the terms of that."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            mean, log_variance = encode_sequence(self.vae, video).float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-30.0, 20.0)
            z = mean + (0.5 * log_variance).exp() * noise
            made = decode_sequence(self.vae, z).float()
        weights = self.recipe.loss
        error = (made - video).abs()
        plain = (error if heads is None else error * (1 + weights.head * heads)).mean()
        detail = _edge_error(made - video)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = plain + weights.detail * detail + weights.kl * divergence
        return made, loss, {"l1": error.mean().detach(), "edge": detail.detach(), "kl": divergence.detach()}

    @torch.no_grad()
    def reconstruct(self, video: Tensor) -> Tensor:
        """Decode the posterior mean of `video`, clamped to [-1, 1], in float32."""
        mean, _ = encode_sequence(self.vae, video).chunk(2, dim=1)
        return decode_sequence(self.vae, mean).clamp(-1, 1)

    def evaluate(self) -> dict[str, float]:
        """Mean PSNR in dB of the averaged weights on held-out clips and close-ups.

        With a recogniser also `likeness`: the mean cosine of faces with the real ones.
        """
        clip, recipe = self.recipe.clip, self.recipe
        windows = self.held_out.sample(
            recipe.eval_clips, clip.num_frames, clip.height, clip.width, "held-out"
        )
        stills = self.held_out.sample_stills(recipe.eval_stills, "held-out")
        with self.average.applied():
            made = torch.cat([self.reconstruct(v) for v in torch.split(windows.video, 4)])
            made_stills = torch.cat([self.reconstruct(v) for v in torch.split(stills, 16)])
        found = {"psnr_video": _psnr(made, windows.video), "psnr_still": _psnr(made_stills, stills)}
        if self.likeness is not None:
            faces = choose_faces(windows, recipe.loss, generator(self.device, "held-out faces"))
            with torch.no_grad():
                found["likeness"] = 1 - float(self._unlike(made, faces | {"video": windows.video})[1])
        return found

    @torch.no_grad()
    def latent_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each latent channel over training clips, of the weights held now.

        The deviation is that of samples from the posterior: a channel that says nothing then stays near 0
        instead of being blown up.
        """
        clip, sums = self.recipe.clip, torch.zeros(2, self.recipe.model.z_dim, dtype=torch.float64)
        rounds = -(-self.recipe.stats_clips // 8)
        for i in range(rounds):
            video = self.pool.sample(
                8, clip.num_frames, clip.height, clip.width, self.recipe.seed, "stats", i
            ).video
            mean, log_variance = encode_sequence(self.vae, video).double().chunk(2, dim=1)
            square = mean.square() + log_variance.clamp(-30.0, 20.0).exp()
            sums += torch.stack([mean.mean((0, 2, 3, 4)), square.mean((0, 2, 3, 4))]).cpu() / rounds
        return sums[0].tolist(), (sums[1] - sums[0].square()).sqrt().tolist()

    def export(self, output: Path) -> Path:
        """Write the averaged weights with their latent statistics as `output/vae`, in float16."""
        with self.average.applied():
            means, deviations = self.latent_statistics()
            vae = self.recipe.model.build()
            vae.load_state_dict(self.vae.state_dict())
        vae.register_to_config(latents_mean=means, latents_std=deviations)
        return write_model(vae.half(), output / "vae")


def choose_faces(windows: Windows, loss: VaeLoss, random: torch.Generator) -> dict[str, Tensor]:
    """Whole faces of each window, drawn at random from `random` on the windows' device.

    Returns:
        face_frames int64 [B, F], the frame that each is in; face_points [B, F, 5, 2]; face_weights [B, F] in
        {0, 1}, 0 where a window has fewer than F = `loss.faces` whole faces. The points are then those of the
        crop itself: slots without an actor have points that are not numbers, which no weight of 0 undoes.
    """
    whole = windows.whole  # [B, P, t]
    chance = torch.rand(whole.shape, generator=random, device=whole.device)
    chance[:, :, 0] *= loss.first_frame
    best, place = (chance * whole).flatten(1).topk(min(loss.faces, whole[0].numel()), dim=1)
    points = windows.points.flatten(1, 2)  # [B, P * t, 5, 2]
    chosen = points.gather(1, place[..., None, None].expand(-1, -1, *points.shape[2:]))
    found = best > 0
    chosen = torch.where(found[..., None, None], chosen, template(chosen.device))
    return {"face_frames": place % whole.shape[2], "face_points": chosen, "face_weights": found.float()}


def _edge_error(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring errors along height and width; error [..., H, W]."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _psnr(made: Tensor, real: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio in dB; values in [-1, 1], so the peak is 2."""
    return float((10 * torch.log10(4 / (made - real).square().flatten(1).mean(1).clamp(min=1e-10))).mean())
