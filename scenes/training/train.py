"""Trains the embedded model, the plainly trained one and their judge.

    python -m scenes.training.train vae        --out DIR --minutes 4
    python -m scenes.training.train diffusion  --out DIR --resume DIR --minutes 8
    python -m scenes.training.train plain      --out DIR --resume DIR --minutes 8 --ambiguous
    python -m scenes.training.train classifier --out DIR --resume DIR --minutes 1
    python -m scenes.training.train export     --out DIR --resume DIR
    python -m scenes.training.train pack       --out OUTDIR --resume DIR
    python -m scenes.training.train unpack     --out DIR --resume OUTDIR      # of train_all.sh too
    python -m scenes.training.train probe      --out DIR

On several cards: `torchrun --standalone --nproc_per_node 4 -m scenes.training.train plain ...`; batch, pool and the
like are then each card's.

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
from diffusers import StableDiffusionPipeline

from scenes.captions import vocabulary
from scenes.training import embedded
from scenes.training.autoencoder import encoder_only, latent_means, train_vae, vae_loss
from scenes.training.diffusion import train_diffusion
from scenes.training.loop import RANK, WORLD, Options, Trainee, say
from scenes.training.plain import diffusion_loss, train_plain
from scenes.training.pool import draw, moments
from scenes.world import sample

STAGE_DEFAULTS: dict[str, dict] = {
    "vae": {"batch": 64, "lr": 1e-3},
    "diffusion": {"batch": 768, "chunk": 512, "pool": 131072, "fill": 16384, "redraw_every": 48},
    "plain": {"batch": 768, "lr": 7e-4, "pool": 196608, "redraw_every": 24},
    "classifier": {"batch": 256, "lr": 2e-3},
    "probe": {"steps": 1},
}


def export(source: Path, out: Path) -> None:
    """Write the folder that ships, and hold it to the limits."""
    embedded.save(embedded.load(source), out)
    sizes = embedded.check_limits(out)
    for name, size in sizes.items():
        say(f"  {size:9d} {name}")
    say(f"  {sum(sizes.values()):9d} bytes in all")


def unpack(source: Path, out: Path) -> None:
    """A model's folder from the tars in `source`, where its judge's may lie too."""
    tars = [path for path in sorted(source.glob("*.tar")) if not path.name.startswith("judge-")]
    if not tars:
        raise SystemExit(f"{source} holds no tars of a model; give the OUT of train_all.sh")
    embedded.unpack(tars, out)


def probe(options: Options, networks: list[str]) -> None:
    """Time drawing, encoding and a training step of each network, with channels first and last.

    Leaves `NETWORK.json` in the output folder, in pictures a second.
    """
    pipe = embedded.build(vocabulary(), size=options.size)
    batch = sample(options.chunk, seed=0, split="train")
    times = moments(options.chunk, 0)
    pictures = draw(batch, times, options.size, options.device)[0]
    vae = encoder_only(pipe.vae, options)
    _time("draw", options, options.chunk, lambda: draw(batch, times, options.size, options.device))
    _time("encode", options, options.chunk, lambda: latent_means(vae, pictures))
    options.out.mkdir(parents=True, exist_ok=True)
    for network in networks:
        count = STAGE_DEFAULTS[network]["batch"] if options.device.type == "cuda" else 8
        steps = {"vae": _vae_step, "diffusion": _unet_step}[network]
        speeds = {}
        for name, last in (("channels_first", False), ("channels_last", True)):
            step = steps(pipe, dataclasses.replace(options, channels_last=last), count)
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
    latent = options.size // embedded.FACTOR
    latents = torch.randn(count, 4, latent, latent, device=options.device)
    text = torch.randn(count, embedded.TOKENS, embedded.TEXT_WIDTH, device=options.device, dtype=options.dtype)
    text.requires_grad_()
    timesteps = torch.arange(count, device=options.device) % 1000
    alphas = pipe.scheduler.alphas_cumprod.to(options.device)

    def step() -> None:
        noise = torch.randn_like(latents)
        loss = diffusion_loss(trainee.working["unet"], latents, noise, timesteps, text, alphas, options.snr_cap)
        trainee.step(loss, 1e-4)

    return step


def _vae_step(pipe: StableDiffusionPipeline, options: Options, count: int) -> Callable[[], None]:
    trainee = Trainee({"vae": copy.deepcopy(pipe.vae)}, options)
    latent = options.size // embedded.FACTOR
    target = torch.rand(count, 3, options.size, options.size, device=options.device, dtype=options.dtype)
    noise = torch.randn(count, 4, latent, latent, device=options.device, dtype=options.dtype)
    return lambda: trainee.step(vae_loss(trainee.working["vae"], target, noise), 1e-4)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stage", choices=("vae", "diffusion", "plain", "classifier", "export", "pack", "unpack", "probe")
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="the folder to start from")
    parser.add_argument("--minutes", type=float, help="wall-clock budget, everything included")
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--batch", type=int)
    for name, kind in (("lr", float), ("decay-to", float), ("snr-cap", float), ("save-minutes", float), ("pack", Path)):
        parser.add_argument(f"--{name}", type=kind)
    for name in ("seed", "size", "chunk", "pool", "fill", "redraw-every", "workers"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--networks", nargs="+", default=["vae", "diffusion"], help="what to probe")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=torch.device)
    for name in ("channels-last", "freeze-encoder", "ambiguous", "compile"):
        parser.add_argument(f"--{name}", action="store_true")
    embedded.quiet()
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    stage, networks = given.pop("stage"), given.pop("networks")
    if stage == "export":
        export(given["resume"], given["out"])
    elif stage == "pack":
        say(*embedded.pack(given["resume"], given["out"]))
    elif stage == "unpack":
        unpack(given["resume"], given["out"])
    else:
        run_stage(stage, given, networks)


def run_stage(stage: str, given: dict, networks: list[str]) -> None:
    if WORLD > 1 and stage != "plain":
        raise SystemExit(f"{stage} trains on one card")
    workers = max(0, min(8, (os.cpu_count() or 1) // WORLD - 4))
    if WORLD > 1 and given["device"].type == "cuda":
        given["device"] = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    options = Options(**{"workers": workers, **STAGE_DEFAULTS[stage], **given})
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed * WORLD + RANK)
    say(f"{stage}: {options}")
    if stage == "vae":
        train_vae(options)
    elif stage == "diffusion":
        train_diffusion(options)
    elif stage == "plain":
        train_plain(options)
    elif stage == "probe":
        probe(options, networks)
    else:
        from scenes.training.classifier import train_judge

        train_judge(options)


if __name__ == "__main__":
    main()
