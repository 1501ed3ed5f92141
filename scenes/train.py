"""Trains the embedded model and its judge.

    python -m scenes.train vae        --out DIR --minutes 4
    python -m scenes.train diffusion  --out DIR --resume DIR --minutes 8
    python -m scenes.train classifier --out DIR --resume DIR --minutes 1
    python -m scenes.train export     --out DIR --resume DIR
    python -m scenes.train pack       --out OUTDIR --resume DIR      (unpack: the reverse)
    python -m scenes.train probe      --out DIR

A checkpoint is the diffusers folder itself: float16 weights, averaged over the last steps. Resuming starts
from those, with a fresh optimizer and a warm-up. `train_all.sh` runs the whole recipe.
"""

import argparse
import copy
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from scenes import embedded
from scenes.captions import vocabulary
from scenes.loop import Clock, Options, Trainee, fit, say
from scenes.pool import DescribedScenes, Ring, draw, unit
from scenes.world import STYLES, sample

KL_WEIGHT = 1e-5
CAPTION_DROPOUT = 0.1
SNR_CAP = 5.0  # min-SNR weighting, Hang et al. 2023
STAGE_DEFAULTS: dict[str, dict] = {
    "vae": {"batch": 64, "lr": 1e-3},
    "diffusion": {"batch": 512, "pool": 262144, "fill": 65536},
    "classifier": {"batch": 256, "lr": 2e-3},
    "probe": {"steps": 1},
}


# The VAE.


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


def psnr_by_style(vae: AutoencoderKL, *, split: str, count: int, size: int, device: torch.device) -> dict[str, float]:
    """PSNR in dB of autoencoded pictures over `count` scenes of each style."""
    scores = {}
    for index, style in enumerate(STYLES):
        batch = sample(count, seed=100 + index, split=split)
        batch = batch.replace(style=torch.full_like(batch.style, index))
        target = unit(draw(batch, index, size, device)[0])
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
    loss_function = torch.compile(vae_loss) if options.compile else vae_loss
    ring = Ring(options.pool)
    latent_size = options.size // embedded.FACTOR
    seed = options.seed * 1_000_000

    def redraw() -> None:
        nonlocal seed
        batch = sample(options.chunk, seed=seed, split="train")
        ring.write(picture=draw(batch, seed, options.size, options.device)[0])
        seed += 1

    def loss() -> Tensor:
        target = unit(ring.sample(options.batch)["picture"]).to(options.dtype)
        noise = torch.randn(options.batch, 4, latent_size, latent_size, device=options.device, dtype=options.dtype)
        return loss_function(trainee.working["vae"], target, noise)

    def save() -> None:
        shipped = copy.deepcopy(trainee.averages["vae"])
        if not options.freeze_encoder:
            standardise(shipped, ring.sample(min(1024, options.fill))["picture"])
        keep(embedded.assemble(shipped, pipe.text_encoder, pipe.tokenizer, pipe.unet), options)

    fit(trainee, loss, redraw, save, options, clock)
    shipped = embedded.load(options.out).vae.to(options.device)
    scores = psnr_by_style(shipped, split="val", count=64, size=options.size, device=options.device)
    say(f"  scaling factor {shipped.config.scaling_factor:.4f}; PSNR of validation pictures, dB: {scores}")


# The diffusion model: UNet and text encoder together.


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


def train_diffusion(options: Options) -> None:
    if options.resume is None:
        raise ValueError("diffusion needs a trained VAE: give its folder with --resume")
    clock = Clock(options.minutes, options.steps)
    first_seed = (options.seed + 1) * 1_000_000_000 // options.chunk
    scenes = DescribedScenes(options.resume / "tokenizer", options.chunk, first_seed, options.workers)
    pipe = embedded.load(options.resume)
    vae = encoder_only(pipe.vae, options)
    trainee = Trainee({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, options)
    unet, text_encoder = trainee.working["unet"], trainee.working["text_encoder"]
    loss_function = torch.compile(diffusion_loss) if options.compile else diffusion_loss
    alphas = pipe.scheduler.alphas_cumprod.to(options.device)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(options.device)
    ring = Ring(options.pool)

    def redraw() -> None:
        batch, tokens = next(scenes)
        pictures, seen = draw(batch, scenes.seed, options.size, options.device)
        latents = latent_means(vae, pictures) * vae.config.scaling_factor
        ring.write(latents=latents[seen].half(), tokens=torch.from_numpy(tokens).to(options.device)[seen])

    def loss() -> Tensor:
        rows = ring.sample(options.batch)
        latents = rows["latents"].float()
        draws = torch.rand(3, options.batch, device=options.device)
        version = (draws[0] * rows["tokens"].shape[1]).long()
        tokens = rows["tokens"].long()[torch.arange(options.batch, device=options.device), version]
        tokens = torch.where(draws[1, :, None] < CAPTION_DROPOUT, empty, tokens)
        timesteps = (draws[2] * len(alphas)).long()
        text = text_encoder(tokens)[0]
        return loss_function(unet, latents, torch.randn_like(latents), timesteps, text, alphas)

    def save() -> None:
        averages = trainee.averages
        keep(embedded.assemble(pipe.vae, averages["text_encoder"], pipe.tokenizer, averages["unet"]), options)

    fit(trainee, loss, redraw, save, options, clock)
    scenes.close()


# Shared by the stages.


def keep(pipe: StableDiffusionPipeline, options: Options) -> None:
    """Write the checkpoint, and its packed copy where one is asked for."""
    embedded.save(pipe, options.out)
    if options.pack:
        embedded.pack(options.out, options.pack)
    say(f"  saved {options.out}")


def export(source: Path, out: Path) -> None:
    """Write the folder that ships, and hold it to the limits."""
    embedded.save(embedded.load(source), out)
    sizes = embedded.check_limits(out)
    for name, size in sizes.items():
        say(f"  {size:9d} {name}")
    say(f"  {sum(sizes.values()):9d} bytes in all")


def probe(options: Options, networks: list[str]) -> None:
    """Time drawing, encoding and a training step of each network, plain and compiled.

    Leaves `NETWORK.json` in the output folder, in pictures a second, and torch.compile's results in its
    cache, where training of the same batch size finds them.
    """
    pipe = embedded.build(vocabulary(), size=options.size)
    batch = sample(options.chunk, seed=0, split="train")
    pictures = draw(batch, 0, options.size, options.device)[0]
    vae = encoder_only(pipe.vae, options)
    _time("draw", options, options.chunk, lambda: draw(batch, 0, options.size, options.device))
    _time("encode", options, options.chunk, lambda: latent_means(vae, pictures))
    options.out.mkdir(parents=True, exist_ok=True)
    for network in networks:
        count = STAGE_DEFAULTS[network]["batch"] if options.device.type == "cuda" else 8
        steps = {"vae": _vae_step, "diffusion": _unet_step}[network]
        speeds = {}
        for name, compiled in (("plain", False), ("compiled", True)):
            if compiled and options.device.type != "cuda":
                break
            step = steps(pipe, dataclasses.replace(options, compile=compiled), count)
            speeds[name] = _time(f"{network} step, {name}", options, count, step)
            (options.out / f"{network}.json").write_text(json.dumps(speeds))


def _time(name: str, options: Options, count: int, action: Callable[[], object]) -> float:
    """Pictures a second of an action on `count` pictures, after two untimed ones."""
    began = time.perf_counter()
    action()
    action()
    _wait(options.device)
    first = time.perf_counter() - began
    repeats = 10 if options.device.type == "cuda" else 2
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    _wait(options.device)
    each = (time.perf_counter() - began) / repeats
    say(f"  {name:26s} {count / each:9.0f} pictures/s {1000 * each:8.1f} ms; the first two {first:5.1f} s")
    return count / each


def _unet_step(pipe: StableDiffusionPipeline, options: Options, count: int) -> Callable[[], None]:
    trainee = Trainee({"unet": copy.deepcopy(pipe.unet)}, options)
    function = torch.compile(diffusion_loss) if options.compile else diffusion_loss
    latent = options.size // embedded.FACTOR
    latents = torch.randn(count, 4, latent, latent, device=options.device)
    text = torch.randn(count, embedded.TOKENS, embedded.TEXT_WIDTH, device=options.device, dtype=options.dtype)
    text.requires_grad_()
    timesteps = torch.arange(count, device=options.device) % 1000
    alphas = pipe.scheduler.alphas_cumprod.to(options.device)
    return lambda: trainee.step(
        function(trainee.working["unet"], latents, torch.randn_like(latents), timesteps, text, alphas), 1e-4
    )


def _vae_step(pipe: StableDiffusionPipeline, options: Options, count: int) -> Callable[[], None]:
    trainee = Trainee({"vae": copy.deepcopy(pipe.vae)}, options)
    function = torch.compile(vae_loss) if options.compile else vae_loss
    latent = options.size // embedded.FACTOR
    target = torch.rand(count, 3, options.size, options.size, device=options.device, dtype=options.dtype)
    noise = torch.randn(count, 4, latent, latent, device=options.device, dtype=options.dtype)
    return lambda: trainee.step(function(trainee.working["vae"], target, noise), 1e-4)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("vae", "diffusion", "classifier", "export", "pack", "unpack", "probe"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="the folder to start from")
    parser.add_argument("--minutes", type=float, help="wall-clock budget, everything included")
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--batch", type=int)
    for name, kind in (("lr", float), ("decay-to", float), ("save-minutes", float), ("pack", Path)):
        parser.add_argument(f"--{name}", type=kind)
    for name in ("seed", "size", "chunk", "pool", "fill", "redraw-every", "workers"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--networks", nargs="+", default=["vae", "diffusion"], help="what to probe")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=torch.device)
    for name in ("compile", "freeze-encoder"):
        parser.add_argument(f"--{name}", action="store_true")
    embedded.quiet()
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    stage, networks = given.pop("stage"), given.pop("networks")
    if stage == "export":
        export(given["resume"], given["out"])
    elif stage == "pack":
        say(*embedded.pack(given["resume"], given["out"]))
    elif stage == "unpack":
        embedded.unpack(sorted(given["resume"].glob("*.tar")), given["out"])
    else:
        run_stage(stage, given, networks)


def run_stage(stage: str, given: dict, networks: list[str]) -> None:
    workers = max(0, min(8, (os.cpu_count() or 1) - 4))
    options = Options(**{"workers": workers, **STAGE_DEFAULTS[stage], **given})
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    say(f"{stage}: {options}")
    if stage == "vae":
        train_vae(options)
    elif stage == "diffusion":
        train_diffusion(options)
    elif stage == "probe":
        probe(options, networks)
    else:
        from scenes.classifier import train_judge

        train_judge(options)


if __name__ == "__main__":
    main()
