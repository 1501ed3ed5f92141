"""Training of the embedded model's UNet and text encoder: to draw from noise, and to redraw under injection.

Each step sees scenes in three branches: a clip's frame under its own caption, and two edits of it, each under
the caption that asks for it. All three carry the same noise. In most steps the edits' decoder takes queries,
keys and features from the first branch, through the very processors and hook of the engine. So the model
learns in training what Plug-and-Play (arXiv 2211.12572) asks of it in use: to draw another scene on the
structure of this one.

In FOUND_SHARE of the rows the noise is not drawn at random but found by the engine's own inversion of the frame, with
the model in its current state. Such noise is not Gaussian: it holds what the frame looks like, and the model learns to
read that from it. Since source and noise then belong together, training on the straight line between them also
straightens the path that inversion takes ("reflow", arXiv 2209.03003), so that inversion in few steps loses less.
"""

import random
from contextlib import nullcontext

import torch
from diffusers import UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from adaflow_core.editing.attention import EditState, KeyframePass, editing_attention
from adaflow_core.editing.injection import ConvInjection, injected_conv
from adaflow_core.model.attention import forward_hook
from adaflow_core.model.ddim import CLEAN, Schedule, ddim_step, edit_timesteps
from scenes.training import embedded
from scenes.training.autoencoder import encoder_only, latent_means
from scenes.training.loop import Clock, Options, Trainee, fit
from scenes.training.plain import CAPTION_DROPOUT, diffusion_loss
from scenes.training.pool import BRANCHES, Described, Ring, draw, moments

# What is injected, in which share of the steps: (convolution, attention).
INJECTIONS = {(True, True): 0.65, (False, True): 0.1, (True, False): 0.1, (False, False): 0.15}
EARLIEST_START = 850  # edits start between this timestep and the last
FOUND_SHARE = 0.7  # of the rows whose noise comes from inversion
INVERSION_STEPS = (10, 10, 10, 20)  # one is drawn: the embedded model's own number, or sometimes more


@torch.no_grad()
def found_noise(
    unet: UNet2DConditionModel,
    latents: Tensor,  # [B, 4, h, w] scaled
    text: Tensor,  # [B, L, c]
    schedule: Schedule,
    steps: int,
) -> tuple[Tensor, int]:
    """Return the noise [B, 4, h, w] that DDIM inversion finds, and the timestep at which it ends."""
    x, origin = latents, CLEAN
    for target in map(int, edit_timesteps(schedule, steps)[::-1]):
        x = ddim_step(schedule, x, unet(x.to(text.dtype), target, text, return_dict=False)[0].float(), origin, target)
        origin = target
    alpha = schedule.alpha(origin)
    return (x - alpha**0.5 * latents) / (1 - alpha) ** 0.5, origin


def shared_noise(
    latents: Tensor,  # [B, BRANCHES, 4, h, w], the source first
    noise: Tensor,  # [B, 4, h, w] the source's
    start: Tensor,  # [B] timestep at which the edit starts
    alphas: Tensor,  # [1000]
) -> Tensor:
    """Return the noise of each branch in the course of an edit: [B, BRANCHES, 4, h, w].

    An edit starts from the *source's* noisy latents, which still hold some of the source. For the edit that is a part
    of its noise, and DDIM carries it along unless the model removes it.
    """
    alpha = alphas[start][:, None, None, None, None]
    source = latents[:, :1]
    return noise[:, None] + (alpha / (1 - alpha)).sqrt() * (source - latents)


def train_diffusion(options: Options) -> None:
    if options.resume is None:
        raise ValueError("diffusion needs a trained VAE: give its folder with --resume")
    clock = Clock(options.minutes, options.steps)
    first_seed = (options.seed + 1) * 1_000_000_000 // options.chunk
    folder = options.resume / "tokenizer"
    scenes = Described(
        folder, options.chunk, first_seed, options.workers, branches=BRANCHES, ambiguous=options.ambiguous
    )
    pipe = embedded.load(options.resume)
    vae = encoder_only(pipe.vae, options)
    trainee = Trainee({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, options)
    unet, text_encoder = trainee.working["unet"], trainee.working["text_encoder"]
    assert isinstance(unet, UNet2DConditionModel)
    schedule = Schedule(pipe.scheduler.alphas_cumprod.double())
    alphas = schedule.alphas_cumprod.float().to(options.device)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(options.device)
    ring = Ring(options.pool)
    attention, conv = EditState(), ConvInjection()
    dice = random.Random(options.seed)

    def redraw() -> None:
        batches, tokens = next(scenes)
        times = moments(options.chunk, scenes.seed)
        drawn = [draw(batch, times, options.size, options.device) for batch in batches]
        latents = torch.stack([latent_means(vae, pictures) for pictures, _ in drawn], 1) * vae.config.scaling_factor
        seen = torch.stack([visible for _, visible in drawn]).all(0)
        latents, ids = latents[seen], torch.from_numpy(tokens).to(options.device)[seen]
        text = text_encoder(ids[:, 0, 0].long())[0]
        noise, start = found_noise(unet, latents[:, 0], text, schedule, dice.choice(INVERSION_STEPS))
        starts = torch.full((len(latents),), start, device=options.device)
        ring.write(latents=latents.half(), tokens=ids, noise=noise.half(), start=starts)

    def loss() -> Tensor:
        count = options.batch // BRANCHES
        rows = ring.sample(count)
        latents = rows["latents"].float()
        draws = torch.rand(3, count, device=options.device)
        version = (draws[0] * rows["tokens"].shape[2]).long()
        tokens = rows["tokens"].long()[torch.arange(count, device=options.device), :, version]  # [B, BRANCHES, L]
        dropped = torch.rand(tokens.shape[:2], device=options.device) < CAPTION_DROPOUT
        tokens = torch.where(dropped[..., None], empty, tokens)
        timesteps = (draws[1] * len(alphas)).long()
        start = torch.randint(EARLIEST_START, len(alphas), (count,), device=options.device).maximum(timesteps)
        found = draws[2] < FOUND_SHARE
        start = torch.where(found, rows["start"], start)
        noise = torch.where(found[:, None, None, None], rows["noise"].float(), torch.randn_like(latents[:, 0]))
        noise = shared_noise(latents, noise, start, alphas)
        injected_features, injected_attention = dice.choices(list(INJECTIONS), list(INJECTIONS.values()))[0]
        injecting = conv.injecting(BRANCHES, source=True) if injected_features else nullcontext()
        latents, noise, tokens = (rearrange(x, "b k ... -> (k b) ...") for x in (latents, noise, tokens))
        with attention.during(KeyframePass(source=True, inject=injected_attention)), injecting:
            text = text_encoder(tokens)[0]
            return diffusion_loss(unet, latents, noise, timesteps.repeat(BRANCHES), text, alphas, options.snr_cap)

    def save() -> None:
        averages = trainee.averages
        whole = embedded.assemble(pipe.vae, averages["text_encoder"], pipe.tokenizer, averages["unet"])
        embedded.keep(whole, options.out, options.pack)

    with editing_attention(unet, attention), forward_hook(injected_conv(unet), conv):
        fit(trainee, loss, redraw, save, options, clock)
    scenes.close()
