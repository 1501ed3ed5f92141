"""Training of the UNet and the text encoder: to draw from noise, and to redraw under injection.

Each step sees scenes in three branches: a clip's frame under its own caption, and two edits of it, each under
the caption that asks for it. All three carry the same noise. In most steps the edits' decoder takes queries,
keys and features from the first branch, through the very processors and hook of the engine. So the model
learns in training what Plug-and-Play (arXiv 2211.12572) asks of it in use: to draw another scene on the
structure of this one.
"""

import random

import torch
from diffusers import UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from adaflow_core.attention import AttentionState, ConvInjection, editing_attention, forward_hook, injected_conv
from scenes import embedded
from scenes.autoencoder import encoder_only, latent_means
from scenes.loop import Clock, Options, Trainee, fit
from scenes.pool import BRANCHES, DescribedEdits, Ring, draw, moments

CAPTION_DROPOUT = 0.1
SNR_CAP = 5.0  # min-SNR weighting, Hang et al. 2023
# What is injected, in which share of the steps: (convolution, attention).
INJECTIONS = {(True, True): 0.65, (False, True): 0.1, (True, False): 0.1, (False, False): 0.15}
EARLIEST_START = 850  # edits start between this timestep and the last


def diffusion_loss(
    unet: UNet2DConditionModel,
    latents: Tensor,  # [B, 4, h, w] scaled
    noise: Tensor,  # [B, 4, h, w]
    timesteps: Tensor,  # [B]
    text: Tensor,  # [B, L, c]
    alphas: Tensor,  # [1000] cumulative products
) -> Tensor:
    """Squared error of the predicted noise, each timestep weighted by min(SNR, 5) / SNR."""
    alpha = alphas[timesteps][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    predicted = unet(noisy.to(text.dtype), timesteps, text, return_dict=False)[0]
    snr = (alpha / (1 - alpha)).flatten()
    return ((predicted.float() - noise).square().mean((1, 2, 3)) * snr.clamp(max=SNR_CAP) / snr).mean()


def shared_noise(
    latents: Tensor,  # [B, BRANCHES, 4, h, w], the source first
    start: Tensor,  # [B] timestep at which the edit starts
    alphas: Tensor,  # [1000]
) -> Tensor:
    """The noise of each branch on the way of an edit: [B, BRANCHES, 4, h, w].

    An edit starts from the *source's* noisy latents, in which some of the source still shines through: to the
    edit that is a part of its noise, and DDIM carries it along unless the model takes it out.
    """
    alpha = alphas[start][:, None, None, None, None]
    source = latents[:, :1]
    return torch.randn_like(source) + (alpha / (1 - alpha)).sqrt() * (source - latents)


def train_diffusion(options: Options) -> None:
    if options.resume is None:
        raise ValueError("diffusion needs a trained VAE: give its folder with --resume")
    clock = Clock(options.minutes, options.steps)
    first_seed = (options.seed + 1) * 1_000_000_000 // options.chunk
    scenes = DescribedEdits(options.resume / "tokenizer", options.chunk, first_seed, options.workers)
    pipe = embedded.load(options.resume)
    vae = encoder_only(pipe.vae, options)
    trainee = Trainee({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, options)
    unet, text_encoder = trainee.working["unet"], trainee.working["text_encoder"]
    assert isinstance(unet, UNet2DConditionModel)
    alphas = pipe.scheduler.alphas_cumprod.to(options.device)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(options.device)
    ring = Ring(options.pool)
    attention, conv = AttentionState(mode="keyframes", source=True), ConvInjection()
    dice = random.Random(options.seed)

    def redraw() -> None:
        batches, tokens = next(scenes)
        times = moments(options.chunk, scenes.seed)
        drawn = [draw(batch, times, options.size, options.device) for batch in batches]
        latents = torch.stack([latent_means(vae, pictures) for pictures, _ in drawn], 1) * vae.config.scaling_factor
        seen = torch.stack([visible for _, visible in drawn]).all(0)
        ring.write(latents=latents[seen].half(), tokens=torch.from_numpy(tokens).to(options.device)[seen])

    def loss() -> Tensor:
        count = options.batch // BRANCHES
        rows = ring.sample(count)
        latents = rows["latents"].float()
        draws = torch.rand(2, count, device=options.device)
        version = (draws[0] * rows["tokens"].shape[2]).long()
        tokens = rows["tokens"].long()[torch.arange(count, device=options.device), :, version]  # [B, BRANCHES, L]
        dropped = torch.rand(tokens.shape[:2], device=options.device) < CAPTION_DROPOUT
        tokens = torch.where(dropped[..., None], empty, tokens)
        timesteps = (draws[1] * len(alphas)).long()
        start = torch.randint(EARLIEST_START, len(alphas), (count,), device=options.device).maximum(timesteps)
        noise = shared_noise(latents, start, alphas)
        injected_features, attention.inject = dice.choices(list(INJECTIONS), list(INJECTIONS.values()))[0]
        conv.mode = "batch" if injected_features else "off"
        latents, noise, tokens = (rearrange(x, "b k ... -> (k b) ...") for x in (latents, noise, tokens))
        return diffusion_loss(unet, latents, noise, timesteps.repeat(BRANCHES), text_encoder(tokens)[0], alphas)

    def save() -> None:
        averages = trainee.averages
        whole = embedded.assemble(pipe.vae, averages["text_encoder"], pipe.tokenizer, averages["unet"])
        embedded.keep(whole, options.out, options.pack)

    with editing_attention(unet, attention), forward_hook(injected_conv(unet), conv):
        fit(trainee, loss, redraw, save, options, clock)
    scenes.close()
