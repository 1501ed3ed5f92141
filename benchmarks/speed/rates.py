"""What the pieces of an edit reach on a GPU, one by one, to decide where its time can be saved.

    python -m benchmarks.speed.rates --json rates.json --profiles profiles.txt

Each section stands alone: one that fails leaves its error, and none begins after `--limit` seconds.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from adaflow_core.editing.attention import (
    EditState,
    KeyframePass,
    PropagationPass,
    editing_attention,
    extended_attention,
)
from adaflow_core.editing.finish.preservation import restore_detail
from adaflow_core.model.attention import PassState, frame_attention
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import gather_blend
from adaflow_core.planning.features import Capture, feature_pass
from adaflow_core.planning.matching import best_match, match_maps
from adaflow_core.planning.slimming import select_tokens
from benchmarks.output import write_json
from benchmarks.speed.clock import GIB, matrix_rate, seconds
from benchmarks.speed.measure import describe_rate
from benchmarks.speed.micro import keyframe_pass
from benchmarks.speed.stand_ins import ARCHITECTURES, check_finite, make_backbone
from benchmarks.speed.work import count_passes

Row = dict[str, Any]
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


class Rates:
    def __init__(self, backbone: Backbone, width: int, height: int, profiles: Path) -> None:
        self.backbone, self.width, self.height, self.profiles = backbone, width, height, profiles
        self.device, self.dtype = backbone.device, backbone.dtype
        self.passes = count_passes(backbone, width, height)
        self.grids = backbone.grids(width, height)
        self.prompt_embeds = backbone.embed("a film").prompt_embeds

    # --- what the sections share ------------------------------------------------------------------

    def latents(self, frames: int) -> Tensor:
        """[F, 4, h, w] float32 on the device."""
        factor = self.backbone.factor
        return torch.randn(frames, 4, self.height // factor, self.width // factor, device=self.device)

    def timed(self, work: Callable[[], Any], frames: int, flop: float, repeats: int = 3) -> Row:
        """Seconds per frame, TFLOP/s and the peak of memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        spent = seconds(work, self.device, repeats)
        peak = torch.cuda.max_memory_allocated() / GIB if self.device.type == "cuda" else 0.0
        return {"frames": frames, "ms_per_frame": 1e3 * spent / frames, "tflops": frames * flop / spent / 1e12,
                "gib": round(peak, 2)}  # fmt: skip

    def profile(self, name: str, work: Callable[[], Any]) -> None:
        """Appends the kernels that take most of `work`'s time to the file of profiles."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        key = "self_cpu_time_total"
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            key = "self_cuda_time_total"
        work()
        with torch.profiler.profile(activities=activities) as profiler:
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
        table = profiler.key_averages().table(sort_by=key, row_limit=28, max_name_column_width=90)
        keep = [line for line in table.splitlines() if line.strip("- ")]
        with self.profiles.open("a", encoding="utf-8") as file:
            print(f"=== {name}", *keep, "", sep="\n", file=file)

    def propagating(
        self, frames: int, changes: bool, K: int = 48
    ) -> tuple[EditState, PropagationPass, Callable[[], Any]]:
        """Return a state that propagates from K keyframes to `frames` frames in two branches, the pass, and its call.

        With `changes` the source's branch is a third one.
        """
        state = EditState(attend=self.backbone.attend, gather=self.backbone.gather)
        keyframes = KeyframePass(edits=1, prompts=1, keep_outputs=True)
        with editing_attention(self.backbone.unet, state), state.during(keyframes):
            self.backbone.predict(self.latents(1), 500, self.prompt_embeds)
        for layer, own in state.outputs.items():
            state.outputs[layer] = own.expand(2, K, -1, -1).contiguous()
        state.changes = changes
        propagation = PropagationPass(
            slots=torch.randint(0, K, (frames, 2), device=self.device),
            index={g.n: torch.randint(0, g.n, (frames, 2, g.n), device=self.device) for g in self.grids},
            weights={
                g.n: torch.full((frames, 2, g.n), 0.5, device=self.device, dtype=torch.float16) for g in self.grids
            },
            source=changes,
            prompts=1,
        )
        latents = self.latents((2 + changes) * frames)
        return state, propagation, lambda: self.backbone.predict(latents, 500, self.prompt_embeds)

    # --- sections ---------------------------------------------------------------------------------

    def copies(self) -> Iterator[Row]:
        block = torch.empty(2**28, device=self.device)
        spent = seconds(lambda: block.clone(), self.device)
        yield {"what": "device copy", "gb_per_s": 2 * block.numel() * 4 / spent / 1e9}
        host = torch.empty(2**26, dtype=torch.uint8)
        for name, source in (("pageable", host), ("pinned", host.pin_memory())):
            spent = seconds(partial(source.to, self.device, non_blocking=True), self.device)
            yield {"what": f"{name} to device", "gb_per_s": host.numel() / spent / 1e9}
        there = host.to(self.device)
        yield {"what": "to host", "gb_per_s": host.numel() / seconds(lambda: there.cpu(), self.device) / 1e9}
        for dtype in (torch.float16, torch.bfloat16):
            yield {"what": f"matrix {dtype}", "tflops": matrix_rate(self.device, dtype) / 1e12}

    def unet(self) -> Iterator[Row]:
        """The bare UNet by memory layout and batch; then as the engine runs it, with texts shared by all frames."""
        unet, time_ = self.backbone.unet, torch.full((), 500, device=self.device)

        def bare(frames: int, layout: torch.memory_format) -> Callable[[], Any]:
            sample = self.latents(frames).to(self.dtype, memory_format=layout)
            prompt_embeds = self.prompt_embeds.expand(frames, -1, -1)
            return lambda: unet(sample, time_, encoder_hidden_states=prompt_embeds, return_dict=False)

        for layout in (torch.contiguous_format, torch.channels_last):
            unet.to(memory_format=layout)
            name = str(layout).removeprefix("torch.")
            for frames in (16, 32, 64, 128):
                yield {"layout": name, **self.timed(bare(frames, layout), frames, self.passes.whole)}
            self.profile(f"whole pass, 32 frames, {name}", bare(32, layout))
        with frame_attention(unet, PassState(attend=self.backbone.attend, prompts=1)):
            for frames in (32, 64):
                work = partial(self.backbone.predict, self.latents(frames), 500, self.prompt_embeds)
                yield {"layout": name, "texts": "shared", **self.timed(work, frames, self.passes.whole)}
            self.profile("whole pass, 32 frames, shared texts", partial(self.backbone.predict, self.latents(32), 500,
                                                                        self.prompt_embeds))  # fmt: skip
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            row = self.timed(bare(32, torch.channels_last), 32, self.passes.whole)
            yield {"layout": "channels_last", "attention": "cudnn", **row}

    def attention(self) -> Iterator[Row]:
        for B, n, M, H, d in (
            (64, 4032, 4032, 5, 64),
            (64, 1008, 1008, 10, 64),
            (64, 4032, 77, 5, 64),
            (2, 4032, 80640, 5, 64),
            (4, 1008, 20160, 10, 64),
        ):
            q, (k, v) = self._random(B, H, n, d), (self._random(B, H, M, d) for _ in range(2))
            for name, backend in BACKENDS.items():
                try:
                    with sdpa_kernel(backend):
                        spent = seconds(partial(F.scaled_dot_product_attention, q, k, v), self.device)
                except RuntimeError as problem:
                    yield {"shape": [B, H, n, M, d], "backend": name, "error": str(problem).splitlines()[0][:120]}
                    continue
                needed = 4 * B * H * n * M * d
                yield {"shape": [B, H, n, M, d], "backend": name, "ms": 1e3 * spent, "tflops": needed / spent / 1e12}
        K, M, H, d = 48, 20 * 4032, 5, 64
        kept = select_tokens(torch.rand(K, K, 4032), M).tokens.to(self.device)
        q, k, v = (self._random(K, H, 4032, d) for _ in range(3))
        flat = k.transpose(0, 1).reshape(H, -1, d)
        by_token = k.transpose(1, 2).reshape(-1, H * d)
        spent = seconds(lambda: [flat[:, kept[i : i + 2]] for i in range(0, K, 2)], self.device)
        yield {"what": "gather by head", "ms": 1e3 * spent, "gb_per_s": 2 * K * M * H * d * 2 / spent / 1e9}
        spent = seconds(lambda: [by_token[kept[i : i + 2]] for i in range(0, K, 2)], self.device)
        yield {"what": "gather by token", "ms": 1e3 * spent, "gb_per_s": 2 * K * M * H * d * 2 / spent / 1e9}
        for name, sampled in (("best", 0), ("sampled", 17 * 4032)):
            work = partial(
                extended_attention,
                q,
                k,
                v,
                K,
                kept,
                self.backbone.attend,
                d**-0.5,
                num_sampled=sampled,
                sample_weight=4.0,
            )
            spent = seconds(work, self.device, repeats=1)
            needed = 4 * K * H * 4032 * M * d
            yield {"what": f"extended attention, {name}", "ms": 1e3 * spent, "tflops": needed / spent / 1e12}

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def propagation(self) -> Iterator[Row]:
        for changes in (False, True):
            flop = 2 * self.passes.propagated + changes * self.passes.whole
            for frames in (16, 32, 64):
                state, propagation, run = self.propagating(frames, changes)
                with editing_attention(self.backbone.unet, state), state.during(propagation):
                    yield {"with_source": changes, **self.timed(run, frames, flop)}
                    if frames == 32:
                        self.profile(f"propagation of 32 frames, with source: {changes}", run)
        grid = self.grids[0]
        outputs = self._random(48, grid.n, 320)
        slots, index = (
            torch.randint(0, n, s, device=self.device) for n, s in ((48, (32, 2)), (grid.n, (32, 2, grid.n)))
        )
        weights = torch.full((32, 2, grid.n), 0.5, device=self.device, dtype=torch.float16)
        spent = seconds(lambda: gather_blend(outputs, slots, index, weights), self.device)
        yield {"what": "gather_blend, finest layer, 32 frames", "ms": 1e3 * spent}

    def autoencoder(self) -> Iterator[Row]:
        vae = self.backbone.vae
        frames = np.random.default_rng(0).integers(0, 255, (16, self.height, self.width, 3), dtype=np.uint8)
        for layout in (torch.contiguous_format, torch.channels_last):
            vae.to(memory_format=layout)
            name = str(layout).removeprefix("torch.")
            for size in (4, 8, 16):
                row = self.timed(partial(self.backbone.encode, frames[:size]), size, self.passes.encode)
                yield {"what": "encode", "layout": name, **row}
                x = self.latents(size)
                row = self.timed(partial(self.backbone.decode, x), size, self.passes.decode)
                yield {"what": "decode", "layout": name, **row}
            x = self.latents(8)
            self.profile(f"decode, 8 frames, {layout}", partial(self.backbone.decode, x))
        eight = torch.from_numpy(frames[:8]).to(self.device)
        spent = seconds(lambda: restore_detail(eight, eight.flip(0), eight, 1.0), self.device)
        yield {"what": "restore_detail", "ms_per_frame": 1e3 * spent / 8}

    def features(self) -> Iterator[Row]:
        empty = self.backbone.embed("")
        x = self.latents(32)

        def work() -> None:
            feature_pass(self.backbone, x, empty, Capture(None))

        yield {"what": "feature pass", **self.timed(work, 32, self.passes.until_features)}
        self.profile("feature pass, 32 frames", work)
        tokens = F.normalize(torch.randn(33, 4032, 64, device=self.device), dim=-1)
        for dtype in (torch.float32, torch.float16):
            a = tokens.to(dtype)
            spent = seconds(partial(best_match, a[:32], a[1:]), self.device)
            yield {"what": f"best match, 4032 tokens, {dtype}", "ms_per_frame": 1e3 * spent / 32}
            b = a[:, ::4].contiguous()
            spent = seconds(partial(match_maps, b[:32], b[1:]), self.device)
            yield {"what": f"match maps, 1008 tokens, {dtype}", "ms_per_frame": 1e3 * spent / 32}

    def keyframes(self) -> Iterator[Row]:
        yield from keyframe_pass(self.backbone, self.width, self.height)


SECTIONS = ("copies", "unet", "attention", "keyframes", "propagation", "autoencoder", "features")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.rates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, default="sd21")
    parser.add_argument("--size", default="672x384")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--limit", type=float, default=270.0, help="seconds after which no section begins")
    parser.add_argument("--json", type=Path, default=Path("outputs/rates.json"), help="default: outputs/rates.json")
    parser.add_argument(
        "--profiles", type=Path, default=Path("outputs/profiles.txt"), help="default: outputs/profiles.txt"
    )
    given = parser.parse_args()
    began = time.perf_counter()
    given.profiles.parent.mkdir(parents=True, exist_ok=True)
    given.profiles.write_text("")
    backbone = make_backbone(given.arch, given.device)
    width, height = map(int, given.size.split("x"))
    check_finite(backbone, width, height)
    rates = Rates(backbone, width, height, given.profiles)
    results: Row = {"machine": describe_rate(backbone), "loaded_s": time.perf_counter() - began}
    for name in given.sections:
        if time.perf_counter() - began > given.limit:
            results[name] = "left out: the time was spent"
            continue
        start = time.perf_counter()
        rows: list[Row] = []
        results[name] = rows
        try:
            with torch.inference_mode():
                for row in getattr(rates, name)():
                    rows.append(row)
                    print(name, row, flush=True)
                    write_json(given.json, results)
        except Exception:  # the sections after it can still run
            rows.append({"error": traceback.format_exc(limit=3)})
        rows.append({"section_s": time.perf_counter() - start})
        write_json(given.json, results)
        if backbone.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
