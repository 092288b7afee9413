"""A pipeline of the real classes with random weights, small enough for every test.

A 4x/4x VAE, tokens of 12 pixels. References and prompts matter to what the transformer says, which takes
more than its own initial weights; and the latents' mean and std are not 0 and 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanVACEPipeline, WanVACETransformer3DModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from igrpo_sdk.config import Geometry, Preset
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.references import Reference

TEXT_LENGTH = 64
TINY = Preset(
    name="random",
    geometry=Geometry(48, 60, 9, 8.0),
    steps=3,
    guidance_scale=2.5,
    flow_shift=3.0,
    max_references=3,
    max_text_tokens=TEXT_LENGTH,
    negative_prompt="blurred",
)


def tiny_tokenizer() -> Any:
    """A Unigram tokenizer with T5's special tokens, of single letters and a few words."""
    pieces = [
        *"\u2581abcdefghijklmnopqrstuvwxyzTFP0123456789.;",
        "\u2581person",
        "\u2581people",
        "\u2581talk",
    ]
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((piece, -float(len(piece))) for piece in pieces),
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return T5TokenizerFast(tokenizer_object=tokenizer, **special, extra_ids=0, model_max_length=512)


def tiny_stock(seed: int = 0) -> Any:
    """A stock WanVACEPipeline; the weights are a function of `seed`."""
    torch.manual_seed(seed)
    z = 8
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=z,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.17, -0.38, 0.21, -0.31, 0.02, -0.12, -0.05, -0.2],
        latents_std=[0.04 + 0.005 * i for i in range(z)],
        scale_factor_spatial=4,
        scale_factor_temporal=4,
    )
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 3, 3),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=z,
        out_channels=z,
        text_dim=24,
        freq_dim=16,
        ffn_dim=64,
        num_layers=3,
        rope_max_seq_len=64,
        vace_layers=[0, 2],
        vace_in_channels=2 * z + 16,
    )
    # Random attention hardly mixes tokens: strong weights make references and text matter.
    for name, weight in transformer.named_parameters():
        if weight.ndim > 1 and any(part in name for part in ("vace_patch", "attn", "proj_out")):
            torch.nn.init.normal_(weight, std=0.5)
    config = UMT5Config(vocab_size=64, d_model=24, d_kv=12, d_ff=32, num_layers=2, num_heads=2)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    stock = WanVACEPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=UMT5EncoderModel(config).eval(),
        vae=vae.eval(),
        scheduler=scheduler,
        transformer=transformer.eval(),
    )
    stock.set_progress_bar_config(disable=True)
    return stock


def tiny_pipeline(seed: int = 0) -> IdentityPipeline:
    """`tiny_stock` as an IdentityPipeline with the preset `TINY`."""
    return IdentityPipeline.from_components(**tiny_stock(seed).components, preset=TINY)


def people(count: int, seed: int = 0) -> list[Reference]:
    """`count` different pictures, each of another size and colour."""
    generator = np.random.default_rng(seed)
    pictures = []
    for index in range(count):
        shape = (40 + 7 * index, 52 - 3 * index, 3)
        noise, colour = generator.integers(0, 64, shape), generator.integers(0, 192, 3)
        pictures.append(Reference.load((colour + noise).astype(np.uint8)))
    return pictures
