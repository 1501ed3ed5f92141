"""How near an edit is to the truth, compared with a copy, a flat fill and a fitted colour map."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adaflow_core.model.backbone import Backbone
from benchmarks.intervals import Criterion, Interval, mean_interval, share_interval
from benchmarks.metrics import by_region
from benchmarks.truth import Pair
from scenes.training.classifier import ATTRIBUTES, Judge

CHUNK = 8  # frames at a time through the autoencoder and the judge
ENOUGH = 0.02  # the share of a frame that the object must cover for the frame to be judged


# --- what an edit is compared with ----------------------------------------------------------------


def autoencode(backbone: Backbone, frames: np.ndarray) -> np.ndarray:
    """Return the frames [T, H, W, 3] after a round trip through the autoencoder: the best that an edit can reach."""
    parts = [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]
    return np.concatenate([backbone.decode(backbone.encode(part)) for part in parts])


def fill_flat(source: np.ndarray, truth: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The source with the region painted in the truth's mean colour."""
    filled = source.copy()
    if region.any():
        filled[region] = truth[region].mean(axis=0).round().astype(np.uint8)
    return filled


def fit_affine(source: np.ndarray, truth: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The best affine colour map of the source, fitted to the truth inside the region and outside it."""
    mapped = source.copy()
    for part in (region, ~region):
        if part.any():
            rows = np.column_stack([source[part].astype(np.float64), np.ones(int(part.sum()))])
            wanted = truth[part].astype(np.float64)
            # Normal equations: millions of pixels, four unknowns a channel.
            matrix = np.linalg.lstsq(rows.T @ rows, rows.T @ wanted, rcond=None)[0]
            mapped[part] = (rows @ matrix).round().clip(0, 255).astype(np.uint8)
    return mapped


# --- scores of one clip ---------------------------------------------------------------------------


def score_regions(frames: np.ndarray, pair: Pair) -> dict[str, float]:
    """PSNR and SSIM to the truth inside the region that changes and outside it; nan where there is none."""
    return by_region(frames, pair.truth, pair.region)


def score_references(backbone: Backbone, pair: Pair, source: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the scores of the references that an edit is compared with; `source`: the frames that were edited."""
    return {
        "copy": score_regions(source, pair),
        "autoencoded": score_regions(autoencode(backbone, pair.truth), pair),
        "flat": score_regions(fill_flat(source, pair.truth, pair.region), pair),
        "affine": score_regions(fit_affine(source, pair.truth, pair.region), pair),
    }


def _predict(judge: Judge, frames: np.ndarray) -> dict[str, np.ndarray]:
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    found = [judge.predict(part) for part in pictures.split(CHUNK)]
    return {name: torch.cat([f[name] for f in found]).cpu().numpy() for name in ATTRIBUTES}


def judge_clip(judge: Judge, frames: np.ndarray, pair: Pair) -> dict[str, Any]:
    """Return whether the judge sees the target attribute in a clip, and the other attributes unchanged.

    Both as shares of the frames that show enough of the object, and for the clip as a whole, by the most frequent
    answer.
    """
    answers = _predict(judge, frames[pair.shown >= ENOUGH])
    wanted = {name: int(getattr(pair.after, name)[0]) for name in ATTRIBUTES}
    frames_right = {name: answers[name] == wanted[name] for name in ATTRIBUTES}
    seen = {name: int(np.bincount(answers[name]).argmax()) for name in ATTRIBUTES}
    others = [name for name in ATTRIBUTES if name != pair.attribute]
    return {
        "target_frames": float(frames_right[pair.attribute].mean()),
        "target": seen[pair.attribute] == wanted[pair.attribute],
        "others_frames": float(np.all([frames_right[name] for name in others], axis=0).mean()),
        "others": all(seen[name] == wanted[name] for name in others),
        "seen": {name: ATTRIBUTES[name][number] for name, number in seen.items()},
    }


# --- many clips -----------------------------------------------------------------------------------


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and intervals over clips of one kind, each row as `measure` of benchmarks.edits makes it."""
    summary: dict[str, Any] = {
        who: {score: mean_interval(row[who][score] for row in rows) for score in rows[0][who]}
        for who in ("edit", "copy", "autoencoded", "flat", "affine")
    }

    def difference(score: str, first: str, second: str) -> Interval:
        return mean_interval(row[first][score] - row[second][score] for row in rows)

    summary["gain_over_copy"] = difference("psnr_inside", "edit", "copy")
    summary["ssim_over_flat"] = difference("ssim_inside", "edit", "flat")
    summary["ssim_of_autoencoded"] = mean_interval(
        row["edit"]["ssim_inside"] / row["autoencoded"]["ssim_inside"] for row in rows
    )
    summary["outside_under_autoencoded"] = difference("psnr_outside", "autoencoded", "edit")
    for who in ("judge", "judge_on_truth"):
        summary[who] = {name: share_interval([row[who][name] for row in rows]) for name in ("target", "others")}
        for name in ("target_frames", "others_frames"):
            summary[who][name] = mean_interval(row[who][name] for row in rows)
    return summary


def check_criteria(summary: dict[str, Any]) -> list[Criterion]:
    """Check the means against what edits must reach; "clearly" above a flat fill means the whole 95 % interval."""
    gain = summary["gain_over_copy"]["mean"]
    ratio = summary["ssim_of_autoencoded"]["mean"]
    flat = summary["ssim_over_flat"]
    clear = flat["mean"] if flat["low"] is None else flat["low"]
    found = [
        Criterion("PSNR inside beats the copy by 4 dB", f"{gain:+.1f} dB", gain >= 4),
        Criterion("SSIM inside is 0.7 of the autoencoded truth's", f"{ratio:.2f}", ratio >= 0.7),
        Criterion("SSIM inside is clearly above a flat fill's", f"{flat['mean']:+.2f}", clear > 0),
    ]
    outside, under = summary["edit"]["psnr_outside"]["mean"], summary["outside_under_autoencoded"]["mean"]
    if outside is not None and under is not None:
        value = f"{outside:.1f} dB, {under:.1f} under the autoencoder"
        found.append(Criterion("PSNR outside is 25 dB, or within 1.5 of it", value, outside >= 25 or under <= 1.5))
    for name, text in (
        ("target", "the judge sees the target in 95 % of clips"),
        ("others", "and the others unchanged in 95 %"),
    ):
        share = summary["judge"][name]["mean"]
        found.append(Criterion(text, f"{share:.0%}", share >= 0.95))
    return found
