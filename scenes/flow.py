"""The true correspondence between two frames of a clip, from poses: exact, nothing is estimated."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from scenes.motion import MAIN, SECOND, Frames, ObjectPose, pose, to_screen, to_world
from scenes.render import geometry
from scenes.world import SceneBatch


def _carry(thing: ObjectPose, coords: Tensor, ids: Tensor, number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Move the points of object `number` from its own coordinates to where it is in the other frame."""
    there_x, there_y = to_world(thing, coords[:, :1], coords[:, 1:])
    mine = ids[:, None] == number
    return torch.where(mine, there_x, x), torch.where(mine, there_y, y)


def flow_between(
    frames_a: Frames, frames_b: Frames, size: int
) -> tuple[Tensor, Tensor]:  # [N, 2, H, W] pixels (right, down), [N, H, W] bool
    """Return where in frame b the point that each pixel of frame a shows lies, and whether b shows it too."""
    ids, coords = geometry(frames_a, size)
    ids_b, _ = geometry(frames_b, size)
    x, y = coords[:, :1], coords[:, 1:]  # right for the background and the occluder, which share the world
    for number, thing in ((MAIN, frames_b.main), (SECOND, frames_b.second)):
        x, y = _carry(thing, coords, ids, number, x, y)
    column, row = to_screen(frames_b, x, y, size)
    steps = torch.arange(size, device=ids.device, dtype=torch.float32)
    flow = torch.cat([column - steps.view(1, 1, 1, -1), row - steps.view(1, 1, -1, 1)], 1)

    inside = (column >= 0) & (column <= size - 1) & (row >= 0) & (row <= size - 1)
    grid = rearrange(torch.cat([column, row], 1), "n c h w -> n h w c") * (2 / (size - 1)) - 1
    # All four pixels around the target must show the same thing: a blend across an edge is no match.
    same = torch.ones_like(inside)
    for number in range(4):
        there = F.grid_sample((ids_b[:, None] == number).float(), grid, align_corners=True)
        same &= (ids[:, None] != number) | (there > 0.999)
    one_shot = (frames_a.shot == frames_b.shot).view(-1, 1, 1)
    return flow, (inside & same)[:, 0] & one_shot


def true_flows(
    batch: SceneBatch, times: Tensor, size: int = 256, chunk: int = 8
) -> tuple[Tensor, Tensor]:  # [T - 1, 2, H, W] pixels, [T - 1, H, W] bool
    """Return the flow of one clip (a batch of one row) from each of its times [T] to the next, and where it is valid.

    It is valid at a pixel if the point shown there is inside the next frame, not hidden in it, and in the same shot.
    """
    if len(batch) != 1:
        raise ValueError(f"true_flows takes one clip, got {len(batch)}: pass batch[i : i + 1]")
    device = batch.seed.device
    times = times.to(device, torch.float32)
    frames = pose(batch, torch.zeros(len(times), dtype=torch.long, device=device), times)
    parts = [
        flow_between(frames[i : min(i + chunk, len(times) - 1)], frames[i + 1 : i + 1 + chunk], size)
        for i in range(0, len(times) - 1, chunk)
    ]
    if not parts:  # from a single time nothing moves
        return torch.empty(0, 2, size, size, device=device), torch.empty(0, size, size, dtype=torch.bool, device=device)
    flows, visible = zip(*parts, strict=True)
    return torch.cat(flows), torch.cat(visible)


def true_flow(
    batch: SceneBatch, t_a: float, t_b: float, size: int = 256
) -> tuple[Tensor, Tensor]:  # [2, H, W] pixels a -> b, [H, W] bool
    """Return the flow of one clip from time t_a to t_b, and the pixels at which it is valid: see `true_flows`."""
    flows, visible = true_flows(batch, torch.tensor([t_a, t_b]), size)
    return flows[0], visible[0]
