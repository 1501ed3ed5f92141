"""What many GPUs could do, by arithmetic: the tables of docs/scaling.md.

    python -m benchmarks.speed.scaling --milliseconds 3.8

Sizes follow from Stable Diffusion 2.1 at 384x672 in half precision; the seconds of a pass are what is given. Nothing
here is measured, and the extended attention of keyframes, which depends on their number, comes on top.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

HALF = 2  # bytes


@dataclass(frozen=True)
class Layout:
    """A UNet's self-attention at one frame size: (tokens, channels, layers) of each grid."""

    latent: tuple[int, int] = (48, 84)
    grids: tuple[tuple[int, int, int], ...] = (
        (48 * 84, 320, 5),  # two layers on the way down, three on the way up
        (24 * 42, 640, 5),
        (12 * 21, 1280, 5),
        (6 * 11, 1280, 1),  # the middle block
    )

    @property
    def outputs(self) -> int:
        """Bytes of all layers' self-attention outputs of one frame in one branch; keys and values have as many each."""
        return HALF * sum(tokens * channels * layers for tokens, channels, layers in self.grids)

    @property
    def latents(self) -> int:
        """Bytes of one frame's latents as the inversion stores them."""
        return HALF * 4 * self.latent[0] * self.latent[1]


@dataclass(frozen=True)
class Work:
    """A video and its prompts. `branches` of a guided edit step: negative, positive, and the source's whole pass."""

    frames: int = 1440  # a minute at 24 a second
    prompts: int = 3
    steps: int = 50
    branches: int = 3

    @property
    def passes(self) -> int:
        """UNet passes over a frame: one inversion, and an edit for each prompt."""
        return self.frames * self.steps * (1 + self.prompts * self.branches)


def batch_hours(work: Work, videos: int, methods: int, gpus: int, pass_seconds: float) -> tuple[float, float]:
    """Hours until the last GPU is done, and the share of the GPUs' time that is used.

    A task is a video and a method; each GPU takes the next as it ends one.
    """
    task = work.passes * pass_seconds / 3600
    waves = math.ceil(videos * methods / gpus)
    return waves * task, videos * methods / (waves * gpus)


@dataclass(frozen=True)
class Exchange:
    """What one GPU of several receives in each step of one video's edit, in bytes, and what it computes meanwhile."""

    keys_and_values: float  # of the other GPUs' keyframes, two edit branches
    neighbours: float  # outputs of the keyframe beyond each end of its stretch
    compute_seconds: float
    keyframes: float  # per GPU; under 1: some GPUs have none

    def seconds(self, bytes_a_second: float) -> float:
        return (self.keys_and_values + self.neighbours) / bytes_a_second


def exchange(layout: Layout, work: Work, keyframes: int, gpus: int, pass_seconds: float) -> Exchange:
    """One video's timeline in `gpus` stretches, each with the keyframes of its segments."""
    edits = 2
    others = keyframes * (1 - 1 / gpus)
    return Exchange(
        keys_and_values=others * 2 * edits * layout.outputs,
        neighbours=(2 if gpus > 1 else 0) * edits * layout.outputs,
        compute_seconds=work.frames / gpus * work.branches * pass_seconds,
        keyframes=keyframes / gpus,
    )


def tables(milliseconds: float, keyframes: int, nvlink: float, network: float) -> str:
    """Markdown. `nvlink` and `network`: GB/s that one GPU receives within a host and between hosts."""
    layout, work, second = Layout(), Work(), milliseconds / 1000
    lines = ["| GPUs | one method, hours | GPUs used | three methods, hours | GPUs used |", "|---|---|---|---|---|"]
    for gpus in (1, 8, 64):
        one, three = (batch_hours(work, 75, methods, gpus, second) for methods in (1, 3))
        lines.append(f"| {gpus} | {one[0]:.1f} | {one[1]:.0%} | {three[0]:.1f} | {three[1]:.0%} |")
    lines += [
        "",
        "| GPUs | its frames | its keyframes | keys and values, GB | neighbours, GB | compute, s | exchange, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for gpus in (1, 8, 64):
        part = exchange(layout, work, keyframes, gpus, second)
        speed = (nvlink if gpus <= 8 else network) * 1e9
        lines.append(
            f"| {gpus} | {work.frames / gpus:g} | {part.keyframes:g} | {part.keys_and_values / 1e9:.2f} | "
            f"{part.neighbours / 1e9:.3f} | {part.compute_seconds:.2f} | {part.seconds(speed):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=3.8, help="of a UNet pass over a frame")
    parser.add_argument("--keyframes", type=int, default=24)
    parser.add_argument("--nvlink", type=float, default=450, help="GB/s into a GPU within a host")
    parser.add_argument("--network", type=float, default=50, help="GB/s into a GPU between hosts")
    arguments = parser.parse_args()
    print(tables(arguments.milliseconds, arguments.keyframes, arguments.nvlink, arguments.network))


if __name__ == "__main__":
    main()
