"""The judge: a small network that says which object, colour, background and style a picture shows.

It scores generated and edited pictures, so it is trained on rendered pictures and on the same ones after the
embedded model's autoencoder, slightly blurred and noisy, and on every combination of attributes, those
included that the embedded model never saw.
"""

import itertools
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scenes.training import embedded
from scenes.training.loop import Clock, Options, Trainee, fit, say
from scenes.training.pool import Ring, alone, draw, moments, unit
from scenes.world import BACKGROUNDS, COLOURS, KINDS, STYLES, SceneBatch, sample

ATTRIBUTES = {"kind": KINDS, "colour": COLOURS, "background": BACKGROUNDS, "style": STYLES}
WEIGHTS, WORDS = "judge.safetensors", "judge.json"


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Judge(nn.Module):
    """Four heads over one small convolutional trunk; about 0.4 million weights."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 128)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, stride=2, padding=2)]
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
            if wide < widths[-1]:
                layers.append(_Residual(wide))
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, widths[-1]), nn.SiLU())
        # The mean knows backgrounds and styles, the maximum finds the object.
        self.heads = nn.ModuleDict({name: nn.Linear(2 * widths[-1], len(words)) for name, words in ATTRIBUTES.items()})

    def pooled(self, images: Tensor) -> Tensor:  # [B, 3, H, W] in -1..1 -> [B, 256]
        features = self.trunk(images)
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # [B, 3, H, W] in -1..1 -> each [B, words]
        pooled = self.pooled(images)
        return {name: head(pooled) for name, head in self.heads.items()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """The likeliest value of each attribute, as indices into the world's vocabulary.

        images: [B, 3, H, W] in 0..1, about 256 pixels a side -> each [B] int64
        """
        weight = next(self.parameters())
        logits = self(2 * images.to(weight.device, weight.dtype) - 1)
        return {name: values.argmax(1) for name, values in logits.items()}


def load_judge(path: Path | str, device: torch.device | str = "cpu") -> Judge:
    """Load the judge in a folder, in float32; ValueError if it was trained on another vocabulary."""
    words = json.loads((Path(path) / WORDS).read_text())["words"]
    if words != {name: list(values) for name, values in ATTRIBUTES.items()}:
        raise ValueError(f"{path} judges another vocabulary; train it again with scenes.training.train classifier")
    judge = Judge()
    judge.load_state_dict(load_file(Path(path) / WEIGHTS))
    return judge.eval().to(device)


def save_judge(judge: nn.Module, path: Path | str) -> None:
    """Write the judge as float16 safetensors beside the words it knows."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().half().contiguous() for name, value in judge.state_dict().items()}
    save_file(weights, path / WEIGHTS)
    words = {"words": {name: list(values) for name, values in ATTRIBUTES.items()}}
    (path / WORDS).write_text(json.dumps(words, indent=2) + "\n")


def labels(batch: SceneBatch) -> Tensor:  # [B, 4], in the order of ATTRIBUTES
    return torch.stack([getattr(batch, name) for name in ATTRIBUTES], dim=1)


def autoencoded(vae: AutoencoderKL, pictures: Tensor) -> Tensor:  # [B, 3, H, W] uint8 to the same
    with torch.no_grad():
        parts = [vae.decode(vae.encode(unit(part)).latent_dist.mode()).sample for part in pictures.split(32)]
    return ((torch.cat(parts).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def disturbed(images: Tensor) -> Tensor:  # [B, 3, H, W] in -1..1 to the same
    """Add light blur, noise and shifts of brightness and contrast, with strengths drawn for each picture."""
    draws = torch.rand(4, len(images), 1, 1, 1, device=images.device)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.lerp(images, blurred, draws[0])
    images = images * (0.9 + 0.2 * draws[1]) + 0.1 * (draws[2] - 0.5)
    return images + 0.08 * draws[3] * torch.randn_like(images)


def judge_loss(judge: nn.Module, images: Tensor, truth: Tensor) -> Tensor:
    logits = judge(images)
    losses = [F.cross_entropy(logits[name].float(), truth[:, i]) for i, name in enumerate(ATTRIBUTES)]
    return torch.stack(losses).sum()


def train_judge(options: Options) -> None:
    """Train the judge and report its accuracy; the autoencoder comes from `options.resume`."""
    if options.resume is None:
        raise ValueError("the judge also looks at autoencoded pictures: give the model's folder with --resume")
    clock = Clock(options.minutes, options.steps)
    vae = embedded.load(options.resume).vae.to(options.device).requires_grad_(False)
    trainee = Trainee({"judge": Judge()}, options)
    ring = Ring(options.pool)
    seed = options.seed * 1_000_000

    def redraw() -> None:
        nonlocal seed
        # The validation split has all combinations; the training split never those held out.
        # A judge of the ambiguous world sees the plain one in every other pair of chunks, and knows both.
        ambiguous = options.ambiguous and seed // 2 % 2 == 0
        batch = alone(sample(options.chunk, seed=seed, split="val" if seed % 2 else "train", ambiguous=ambiguous))
        pictures, seen = draw(batch, moments(len(batch), seed), options.size, options.device)
        again = torch.arange(0, len(pictures), 2, device=options.device)
        pictures[again] = autoencoded(vae, pictures[again])
        ring.write(picture=pictures[seen], truth=labels(batch).to(options.device)[seen])
        seed += 1

    def loss() -> Tensor:
        rows = ring.sample(options.batch)
        images = disturbed(unit(rows["picture"])).to(options.dtype)
        return judge_loss(trainee.working["judge"], images, rows["truth"])

    fit(trainee, loss, redraw, lambda: save_judge(trainee.averages["judge"], options.out), options, clock)
    for ambiguous in {False, options.ambiguous}:
        world = "ambiguous" if ambiguous else "plain"
        say(f"  accuracy on test pictures of the {world} world: {accuracy(options, vae, ambiguous)}")


def accuracy(options: Options, vae: AutoencoderKL, ambiguous: bool = False) -> dict[str, dict[str, float]]:
    """The shipped judge's accuracy by attribute on test pictures as rendered and as autoencoded."""
    judge = load_judge(options.out, options.device)
    count = 1024 if options.device.type == "cuda" else 64
    batch = alone(sample(count, seed=0, split="test", ambiguous=ambiguous))
    pictures, seen = draw(batch, moments(len(batch), 0), options.size, options.device)
    truth = labels(batch).to(options.device)[seen]
    scores: dict[str, dict[str, float]] = {}
    for name, shown in (("rendered", pictures), ("autoencoded", autoencoded(vae, pictures))):
        found = [judge.predict(part.float() / 255) for part in shown[seen].split(64)]
        scores[name] = {}
        for i, attribute in enumerate(ATTRIBUTES):
            right = torch.cat([f[attribute] for f in found]) == truth[:, i]
            scores[name][attribute] = round(right.float().mean().item(), 4)
    return scores
