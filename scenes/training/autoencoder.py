"""Training of the embedded model's autoencoder."""

import copy

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from scenes.captions import vocabulary
from scenes.training import embedded
from scenes.training.loop import Clock, Options, Trainee, fit, say
from scenes.training.pool import Ring, draw, moments, unit
from scenes.world import STYLES, sample

KL_WEIGHT = 1e-5


def vae_loss(vae: AutoencoderKL, target: Tensor, noise: Tensor) -> Tensor:
    """L1, squared error, the error of the edges and a trace of KL.

    target: [B, 3, H, W] in -1..1; noise: [B, 4, h, w]
    """
    mean, log_variance = vae.quant_conv(vae.encoder(target)).chunk(2, dim=1)
    latents = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise
    error = (vae.decoder(vae.post_quant_conv(latents)) - target).float()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    mean, log_variance = mean.float(), log_variance.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + KL_WEIGHT * divergence


def latent_means(vae: AutoencoderKL, pictures: Tensor) -> Tensor:  # [B, 4, h, w] float32
    """The latents of uint8 pictures, unscaled."""
    dtype = vae.quant_conv.weight.dtype
    with torch.no_grad():
        moments = [vae.quant_conv(vae.encoder(unit(part).to(dtype))) for part in pictures.split(256)]
    return torch.cat(moments)[:, :4].float()


def encoder_only(vae: AutoencoderKL, options: Options) -> AutoencoderKL:
    """A copy that only encodes, in the half precision that a GPU is fast in: what the model ships as."""
    half = torch.float16 if options.device.type == "cuda" else torch.float32
    return nn.Module.to(copy.deepcopy(vae), options.device, half).requires_grad_(False)


def standardise(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Give each latent channel mean 0 and variance 1, by the 1x1 convolutions on either side of the latents.

    The pictures stay the same. The scaling factor, one number for all channels, then fits each of them.
    """
    means = latent_means(vae, pictures)
    shift, scale = means.mean((0, 2, 3)), means.std((0, 2, 3))
    with torch.no_grad():
        into, out = vae.quant_conv, vae.post_quant_conv
        out.bias += out.weight[:, :, 0, 0] @ shift
        out.weight *= scale[None, :, None, None]
        into.bias[:4] -= shift
        into.bias[:4] /= scale
        into.weight[:4] /= scale[:, None, None, None]
        into.bias[4:] -= 2 * scale.log()
    vae.register_to_config(scaling_factor=1 / latent_means(vae, pictures).std().item())


def psnr_by_style(
    vae: AutoencoderKL, *, split: str, count: int, size: int, device: torch.device, ambiguous: bool = False
) -> dict[str, float]:
    """PSNR in dB of autoencoded pictures over `count` scenes of each style."""
    scores = {}
    for index, style in enumerate(STYLES):
        batch = sample(count, seed=100 + index, split=split, ambiguous=ambiguous)
        batch = batch.replace(style=torch.full_like(batch.style, index))
        target = unit(draw(batch, moments(count, index), size, device)[0])
        with torch.no_grad():
            parts = target.split(32)
            restored = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in parts])
        mse = ((restored.clamp(-1, 1) - target) / 2).square().mean((1, 2, 3))
        scores[style] = round(-10 * mse.log10().mean().item(), 2)
    return scores


def train_vae(options: Options) -> None:
    clock = Clock(options.minutes, options.steps)
    if options.resume:
        pipe = embedded.load(options.resume)
    else:
        pipe = embedded.build(vocabulary(), size=options.size, seed=options.seed)
    vae = pipe.vae
    if options.freeze_encoder:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trainee = Trainee({"vae": vae}, options)
    ring = Ring(options.pool)
    latent_size = options.size // embedded.FACTOR
    seed = options.seed * 1_000_000

    def redraw() -> None:
        nonlocal seed
        batch = sample(options.chunk, seed=seed, split="train", ambiguous=options.ambiguous)
        ring.write(picture=draw(batch, moments(len(batch), seed), options.size, options.device)[0])
        seed += 1

    def loss() -> Tensor:
        target = unit(ring.sample(options.batch)["picture"]).to(options.dtype)
        noise = torch.randn(options.batch, 4, latent_size, latent_size, device=options.device, dtype=options.dtype)
        return vae_loss(trainee.working["vae"], target, noise)

    def save() -> None:
        shipped = copy.deepcopy(trainee.averages["vae"])
        if not options.freeze_encoder:
            standardise(shipped, ring.sample(min(1024, options.fill))["picture"])
        whole = embedded.assemble(shipped, pipe.text_encoder, pipe.tokenizer, pipe.unet)
        embedded.keep(whole, options.out, options.pack)

    fit(trainee, loss, redraw, save, options, clock)
    shipped = embedded.load(options.out).vae.to(options.device)
    scores = psnr_by_style(
        shipped, split="val", count=64, size=options.size, device=options.device, ambiguous=options.ambiguous
    )
    say(f"  scaling factor {shipped.config.scaling_factor:.4f}; PSNR of validation pictures, dB: {scores}")
