"""Plain text-to-image training, like Stable Diffusion's, on single pictures with their captions.

There is no injection, no pair of a scene and its edit, and no noise found by inversion, so that the model behaves in
the engine like checkpoints that were not made for it. The embedded model's training for editing is in `diffusion.py`.
"""

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from scenes.training import embedded
from scenes.training.autoencoder import encoder_only, latent_means
from scenes.training.loop import RANK, WORLD, Clock, Options, Trainee, fit, say
from scenes.training.pool import Described, Ring, draw, moments

CAPTION_DROPOUT = 0.1
# Heads of 40 channels at every level; with text encoder and autoencoder 15.4 million weights, 31 MB in float16.
WIDTHS = (40, 80, 160, 160)


def diffusion_loss(
    unet: UNet2DConditionModel,
    latents: Tensor,  # [B, 4, h, w] scaled
    noise: Tensor,  # [B, 4, h, w]
    timesteps: Tensor,  # [B]
    text: Tensor,  # [B, L, c]
    alphas: Tensor,  # [1000] cumulative products
    snr_cap: float,
) -> Tensor:
    """Squared error of the predicted noise, each timestep weighted by min(SNR, cap) / SNR (Hang et al. 2023)."""
    alpha = alphas[timesteps][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    predicted = unet(noisy.to(text.dtype), timesteps, text, return_dict=False)[0]
    snr = (alpha / (1 - alpha)).flatten()
    return ((predicted.float() - noise).square().mean((1, 2, 3)) * snr.clamp(max=snr_cap) / snr).mean()


def start_from(folder_pipe: StableDiffusionPipeline, size: int, seed: int) -> StableDiffusionPipeline:
    """Return the pipeline to train: the given one, or its autoencoder and tokenizer with a new UNet and text encoder.

    They are new if the given UNet has another shape than `WIDTHS`: then the folder holds another model.
    """
    if tuple(folder_pipe.unet.config.block_out_channels) == WIDTHS:
        return folder_pipe
    torch.manual_seed(seed)
    tokenizer = folder_pipe.tokenizer
    text_encoder, unet = embedded.build_text_encoder(tokenizer), embedded.build_unet(size, WIDTHS)
    say(f"  a new UNet of {sum(weight.numel() for weight in unet.parameters())} weights")
    return embedded.assemble(folder_pipe.vae, text_encoder, tokenizer, unet)


def train_plain(options: Options) -> None:
    """Train UNet and text encoder; `options.resume` holds the autoencoder, or a whole model to continue from."""
    if options.resume is None:
        raise ValueError("plain training needs a trained VAE: give its folder with --resume")
    clock = Clock(options.minutes, options.steps)
    first_seed = ((options.seed + 1) * 1_000_000_000 + RANK * (1_000_000_000 // WORLD)) // options.chunk
    scenes = Described(
        options.resume / "tokenizer",
        options.chunk,
        first_seed,
        options.workers,
        branches=1,
        ambiguous=options.ambiguous,
    )
    pipe = start_from(embedded.load(options.resume), options.size, options.seed)
    vae = encoder_only(pipe.vae, options)
    trainee = Trainee({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, options)
    unet, text_encoder = trainee.working["unet"], trainee.working["text_encoder"]
    assert isinstance(unet, UNet2DConditionModel)
    predict = torch.compile(unet) if options.compile else unet
    alphas = pipe.scheduler.alphas_cumprod.float().to(options.device)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(options.device)
    ring = Ring(options.pool)

    def redraw() -> None:
        (batch,), tokens = next(scenes)
        pictures, seen = draw(batch, moments(options.chunk, scenes.seed), options.size, options.device)
        latents = latent_means(vae, pictures)[seen] * vae.config.scaling_factor
        ring.write(latents=latents.half(), tokens=torch.from_numpy(tokens[:, 0]).to(options.device)[seen])

    def loss() -> Tensor:
        rows = ring.sample(options.batch)
        latents = rows["latents"].float()
        draws = torch.rand(3, options.batch, device=options.device)
        version = (draws[0] * rows["tokens"].shape[1]).long()
        tokens = rows["tokens"].long()[torch.arange(options.batch, device=options.device), version]  # [B, L]
        tokens = torch.where((draws[1] < CAPTION_DROPOUT)[:, None], empty, tokens)
        timesteps = (draws[2] * len(alphas)).long()
        text = text_encoder(tokens)[0]
        return diffusion_loss(predict, latents, torch.randn_like(latents), timesteps, text, alphas, options.snr_cap)

    def save() -> None:
        averages = trainee.averages
        whole = embedded.assemble(pipe.vae, averages["text_encoder"], pipe.tokenizer, averages["unet"])
        embedded.keep(whole, options.out, options.pack, embedded.bare_profile(pipe.tokenizer, options.size))

    fit(trainee, loss, redraw, save, options, clock)
    scenes.close()
