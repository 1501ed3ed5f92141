"""The denoising loop: all keyframes jointly, then every other frame along its correspondence.

AdaFlow (arXiv 2502.05433) with Plug-and-Play injection (arXiv 2211.12572). By default what propagates is not a
keyframe's self-attention output but what the edit changed of it: each frame adds that to its own source's output.
Where a correspondence is a little off, the frame then keeps its own detail, and an edit that changes nothing
gives the source back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaflow_core.config import EditConfig
from adaflow_core.editing.agreement import Agreement
from adaflow_core.editing.attention import EditState, KeyframePass, PropagationPass, editing_attention
from adaflow_core.editing.checkpoint import Checkpoint
from adaflow_core.editing.injection import ConvInjection, StepPasses, injected_conv, step_passes
from adaflow_core.editing.inversion import coarse_part
from adaflow_core.editing.tolerance import significance
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import CLEAN, add_noise, cfg, ddim_step, predict_x0_eps, step_targets
from adaflow_core.model.memory import BLOCK, HostOutputs, Sent, cut_feed_forwards, in_chunks, to_device
from adaflow_core.planning.matching import on_grid
from adaflow_core.progress import Monitor, Stage
from adaflow_core.storage.arrays import scratch
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import EditLayout, Embedding, Held, Inversion

LATENTS_ON_DEVICE = 2**30  # bytes of x up to which it stays there: 16,000 frames of 384x672
Layouts = Callable[[int], EditLayout]
"""Step -> the keyframes, kept tokens and correspondences that hold in it."""


@dataclass(frozen=True)
class _Step:
    """What one denoising step works with."""

    timestep: int
    target: int  # the noise level that it leads to, or CLEAN
    layout: EditLayout
    source: np.ndarray  # [T, 4, h, w] the inversion's latents at this timestep
    source_after: np.ndarray  # and at the next
    clean: np.ndarray  # [T, 4, h, w] the source's
    prompts: list[Tensor]  # [1, L, d] each: negative (where there is guidance) and positive
    passes: StepPasses
    keyframe_pass: KeyframePass
    heading: Tensor | None  # [T, 4, h, w] where it is left what frames are heading for, if they are to agree after it


class Editor:
    """Runs one edit. The UNet carries its processors and hooks only inside `run`."""

    def __init__(
        self,
        backbone: Backbone,
        source: Embedding,
        negative: Embedding,
        positive: Embedding,
        config: EditConfig,
        monitor: Monitor,
        place: np.ndarray | None = None,  # [T, h, w] 0..1, where the edit takes place; None: everywhere
        held: Held | None = None,  # keyframes that are given
        only: slice = slice(None),  # the frames to edit; beside them only the `held` pass through the UNet
        agreement: Agreement | None = None,  # of those frames
    ) -> None:
        assert config.guidance is not None and config.chunk and config.rescale is not None
        assert config.fidelity is not None and config.tolerance is not None
        assert config.focus is not None
        self.backbone, self.config, self.monitor, self.team = backbone, config, monitor, backbone.team
        self.chunk, self.fidelity = config.chunk, config.fidelity
        self.coarse = 1.0 if config.coarse is None else config.coarse
        self.tolerance, self.guidance, self.rescale = config.tolerance, config.guidance, config.rescale
        self.source, self.negative, self.positive = source.states, negative.states, positive.states
        self.held, self.only, self.agreement = held, only, agreement
        self.attention = EditState(
            attend=backbone.attend,
            gather=backbone.gather,
            check=monitor.check,
            changes=config.propagation == "change",
            host=HostOutputs() if config.low_memory else None,
        )
        self.conv = ConvInjection()
        # With a focus below 1 the edit may also change what lies outside the place, to that part.
        self.place = None if place is None or not config.focus else 1 - config.focus * (1 - place)
        self.rows = backbone.whole(self.chunk)  # of which the processes' parts of the other frames are made up
        self._last_kept: tuple[EditLayout, dict[int, Tensor]] | None = None
        self._drawn: Tensor | None = None  # [T, 4, h, w] what is added to the inversion's noise; None: nothing
        self._picture: Sent | None = None  # [K, h, w, 3] uint8 of the keyframes, not yet reported

    @torch.inference_mode()
    def run(
        self,
        inversion: Inversion,
        clean: np.ndarray,  # [T, 4, h, w]
        layouts: Layouts,
        preview: Callable[[Tensor], Tensor] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Tensor, int]:
        """Edited clean latents [T, 4, h, w] float32, on the device or not, and after how many steps it went on.

        `clean` are the source's. `preview` turns the keyframes' predicted clean latents [K, 4, h, w] into small
        pictures [K, h, w, 3] uint8. `checkpoint` is where each step's latents are left, and taken up from.
        """
        unet, S = self.backbone.unet, len(inversion.timesteps)
        self._drawn = self._drawn_anew(inversion, clean) if self.config.variation else None
        x, resumed = self._start(inversion, checkpoint)
        passing, due = len(self._passing(len(x))), [] if self.agreement is None else self.agreement.due(S)
        if self.agreement is not None and due:
            self.agreement.prepare()
        with (
            editing_attention(unet, self.attention),
            forward_hook(injected_conv(unet), self.conv),
            cut_feed_forwards(unet) as self.feed_forwards,
            self.monitor.stage("edit", (S + len(due)) * passing) as stage,
        ):
            stage.skip((resumed + sum(done <= resumed for done in due)) * passing)
            for i in range(resumed, S):
                step = self._step(i, inversion, clean, layouts(i), self._latents(x.shape) if i + 1 in due else None)
                if self.held is not None:
                    held = to_device(self.held.latents[i], self.backbone.device)
                    held = self._with_its_noise(held, self.held.frame_ids, step.timestep)
                    x[to_device(self.held.frame_ids, x.device)] = held.to(x.device)
                self._keyframes(x, step, stage, preview)
                self._others(x, step, stage)
                self.attention.forget()
                if step.heading is not None:
                    self._agree(x, step, stage)
                if checkpoint is not None and self.team.leads:
                    checkpoint.save(i + 1, x, self.backbone.finite.sent())
        if checkpoint is not None:
            checkpoint.finish()  # what could not be written, or is not finite, is known before frames are made of it
        return x, resumed

    def _passing(self, T: int) -> np.ndarray:
        """The frames that pass through the UNet."""
        chosen = np.arange(T)[self.only]
        return chosen if self.held is None else np.union1d(chosen, self.held.frame_ids)

    def _start(self, inversion: Inversion, checkpoint: Checkpoint | None) -> tuple[Tensor, int]:
        """The latents to begin from [T, 4, h, w] float32, and how many steps are behind them."""
        shape = inversion.latents.shape[1:]
        x = self._latents(shape)
        resumed = 0 if checkpoint is None else checkpoint.load(x)
        found = self.team.gather(torch.tensor([resumed]), self.team.size)  # waits: the next one replaces it
        if int(found.min()) < int(found.max()):  # it went between two that read it
            resumed = 0
        if not resumed:
            for frames in np.split(np.arange(len(x)), range(BLOCK, len(x), BLOCK)):
                found = self._source(inversion.latents[0], frames, int(inversion.timesteps[0]))
                if self.coarse != 1:
                    taken, place = (1 - self.coarse) * coarse_part(found), self._place(frames)
                    found -= taken if place is None else place[:, None] * taken
                x[to_device(frames, x.device)] = found.to(x.device)
        return x, resumed

    def _source(self, latents: np.ndarray, frames: np.ndarray, timestep: int) -> Tensor:
        """Of the source's latents at a timestep [T, 4, h, w] those of `frames`, on the device, in the edit's noise."""
        return self._with_its_noise(to_device(latents[frames], self.backbone.device).float(), frames, timestep)

    def _with_its_noise(self, latents: Tensor, frames: np.ndarray, timestep: int) -> Tensor:
        """`latents` [F, 4, h, w] at a timestep with the noise that the edit begins from in place of the inversion's.

        What propagates is a difference from the source (`_propagate`), and what is injected is the source's: in another
        noise than the edit's, that difference would be noise too, and lie elsewhere in each frame.
        """
        if self._drawn is None or timestep == CLEAN:  # whose alpha is not quite one
            return latents
        drawn = self._drawn[to_device(frames, self._drawn.device)].to(latents.device)
        return latents + (1 - self.backbone.schedule.alpha(timestep)) ** 0.5 * drawn

    def _drawn_anew(self, inversion: Inversion, clean: np.ndarray) -> Tensor:
        """[T, 4, h, w] what is added to the inversion's noise, of unit variance as that is, by `variation`."""
        share, device, shape = self.config.variation, self.backbone.device, inversion.latents.shape[1:]
        alpha = self.backbone.schedule.alpha(int(inversion.timesteps[0]))
        # The same for every frame: it must not make frames differ.
        drawn = torch.randn(shape[1:], generator=torch.Generator().manual_seed(self.config.seed)).to(device)
        out = self._latents(shape)
        for frames in np.split(np.arange(len(out)), range(BLOCK, len(out), BLOCK)):
            noisy, source = (to_device(latents[frames], device).float() for latents in (inversion.latents[0], clean))
            noise = (noisy - alpha**0.5 * source) / (1 - alpha) ** 0.5
            more = (math.sqrt(1 - share**2) - 1) * noise + share * drawn
            out[to_device(frames, out.device)] = more.to(out.device)
        return out

    def _latents(self, shape: tuple[int, ...]) -> Tensor:
        """Uninitialised float32: on the device, where no pass has to wait for them, or in a file."""
        if 4 * math.prod(shape) <= LATENTS_ON_DEVICE:
            return torch.empty(shape, device=self.backbone.device)
        return torch.from_numpy(scratch(np.float32, shape))

    def _step(
        self, i: int, inversion: Inversion, clean: np.ndarray, layout: EditLayout, heading: Tensor | None
    ) -> _Step:
        """What step `i` works with."""
        last, passes = i + 1 == len(inversion.timesteps), step_passes(self.config, layout)[i]
        self.attention.match = layout.correspondence.by_layer
        self.attention.edits = passes.edits
        return _Step(
            timestep=int(inversion.timesteps[i]),
            target=int(step_targets(self.backbone.schedule, inversion.timesteps)[i]),
            layout=layout,
            source=inversion.latents[i],
            source_after=clean if last else inversion.latents[i + 1],
            clean=clean,
            prompts=[self.negative, self.positive][-passes.edits :],
            passes=passes,
            keyframe_pass=KeyframePass(
                source=passes.keyframes_source,
                inject=passes.inject_attention,
                keep_outputs=len(layout.keyframes) < inversion.latents.shape[1],
                kept=self._kept(layout),
                sample={g.n: (part.num_sampled, part.sample_weight) for g, part in (layout.slimming or {}).items()},
            ),
            heading=heading,
        )

    def _kept(self, layout: EditLayout) -> dict[int, Tensor] | None:
        """n -> the kept tokens [K, M] int64 on the device; those of the last layout are remembered."""
        if layout.slimming is None:
            return None
        if self._last_kept is None or self._last_kept[0] is not layout:
            kept = {g.n: to_device(part.kept, self.backbone.device).long() for g, part in layout.slimming.items()}
            self._last_kept = layout, kept
        return self._last_kept[1]

    def _keyframes(self, x: Tensor, step: _Step, stage: Stage, preview: Callable[[Tensor], Tensor] | None) -> None:
        """All keyframes of `x` one step on, jointly, or by parts where each attends to itself only.

        Their picture is reported with other frames, where there are any: a GPU would wait for those until Python has
        fetched it.
        """
        keyframes, at, team = step.layout.keyframes, step.keyframe_pass, self._team_of(step.layout)
        joint = step.layout.slimming is not None
        own = keyframes[team.own(len(keyframes))]
        parts = [own] if joint else np.array_split(own, max(1, -(-len(own) // self.chunk)))
        for part in parts:
            there = to_device(part, x.device)
            place = self._place_by_grid(part, step)
            with self.attention.during(replace(at, place=place, count=len(keyframes), team=team)):
                output = self._predict(x[there], step, part, at.source)
            guided = self._move(x, there, output, step, part)
            if preview is not None and joint:
                self._picture = Sent(preview(team.gather(guided, len(keyframes))))
            if len(self._passing(len(x))) > len(keyframes):
                stage.advance(len(part))
            else:
                self._advance(stage, len(part))
        self._exchange(team, x, step, keyframes)
        stage.advance(len(keyframes) - len(own))  # those of the other processes

    def _team_of(self, layout: EditLayout) -> Team:
        """The processes that share out the keyframes; where they cannot, each does all of them."""
        K = len(layout.keyframes)
        # Outputs are exchanged within a pass: all processes must make the same number of passes.
        alike = layout.slimming is not None or len(layout.correspondence.slots) == K
        return self.team if self.team.size <= K and alike else ALONE

    def _place(self, frames: np.ndarray) -> Tensor | None:
        """[F, h, w] float32 on the device."""
        return None if self.place is None else to_device(self.place[frames].astype(np.float32), self.backbone.device)

    def _place_by_grid(self, frames: np.ndarray, step: _Step) -> dict[int, Tensor] | None:
        place = self._place(frames)
        if place is None or step.passes.inject_inside or not step.passes.inject_attention:
            return None
        return {g.n: on_grid(place, g).flatten(1) for g in step.layout.correspondence.index}

    def _others(self, x: Tensor, step: _Step, stage: Stage) -> None:
        """All other frames of `x` one step on, their self-attention gathered from the keyframes."""
        all_others = np.setdiff1d(self._passing(len(x)), step.layout.keyframes)
        others = all_others[self.team.own(len(all_others), self.rows)]

        def propagate(part: slice) -> None:
            frames = others[part]
            there = to_device(frames, x.device)
            with self.attention.during(self._propagation_pass(step, frames)):
                output = self._predict(x[there], step, frames, step.passes.whole_source)
            self._move(x, there, output, step, frames)
            self._advance(stage, len(frames))

        size = self.backbone.pass_size(len(others), self.chunk)
        found = in_chunks(len(others), size, propagate)
        if found < size:  # memory did not do
            self.chunk = found
        self._exchange(self.team, x, step, all_others, self.rows)
        self._advance(stage, len(all_others) - len(others))

    def _advance(self, stage: Stage, count: int) -> None:
        """So many frames more are done; the keyframes' picture goes with it."""
        picture, self._picture = self._picture, None
        stage.advance(count, preview=None if picture is None else picture.array())

    @staticmethod
    def _exchange(team: Team, x: Tensor, step: _Step, frames: np.ndarray, rows: int = 1) -> None:
        for latents in (x, step.heading):
            if latents is not None:
                team.exchange(latents, to_device(frames, latents.device), rows)

    def _agree(self, x: Tensor, step: _Step, stage: Stage) -> None:
        """What makes the edited frames agree, added to `x` as it is after the step."""
        assert self.agreement is not None and step.heading is not None
        frames = np.arange(len(x))[self.only]
        own = frames[self.team.own(len(frames))]
        correction = self.agreement.correction(step.heading[self.only], stage.advance)
        place = self._place(own)
        if place is not None:
            correction *= place[:, None]
        there = to_device(own, x.device)
        x[there] += (self.backbone.schedule.alpha(step.target) ** 0.5 * correction).to(x.device)
        self.team.exchange(x, to_device(frames, x.device))
        stage.advance(len(self._passing(len(x))) - len(own))

    def _propagation_pass(self, step: _Step, frames: np.ndarray) -> PropagationPass:
        device, correspondence = self.backbone.device, step.layout.correspondence
        slots, used = correspondence.slots[frames], None
        # Where all frames name one keyframe twice, the second has no weight.
        P = 1 if (slots == slots[:, :1]).all() else 2
        if self.attention.host is not None:
            places, slots = np.unique(slots, return_inverse=True)
            used, slots = places.tolist(), slots.reshape(len(frames), -1)
        return PropagationPass(
            slots=to_device(slots[:, :P], device),
            index={g.n: to_device(index[frames, :P], device).long() for g, index in correspondence.index.items()},
            weights={g.n: to_device(weights[frames, :P], device) for g, weights in correspondence.weights.items()},
            source=step.passes.whole_source,
            used=used,
        )

    def _predict(self, x: Tensor, step: _Step, frames: np.ndarray, with_source: bool) -> Tensor:
        """The UNet's output by branch [1 to 3, F, 4, h, w]: the source's where it rides along, then the edit's."""
        if step.passes.inject_conv and not with_source:
            self._record_source(step, frames)
        device = self.backbone.device
        latents, prompts = [x.to(device)] * len(step.prompts), list(step.prompts)
        if with_source:
            latents.insert(0, self._source(step.source, frames, step.timestep))
            prompts.insert(0, self.source)
        states = torch.cat([s.expand(len(frames), -1, -1) for s in prompts])
        self.attention.prompts = len(prompts)
        if self.held is not None and (rows := np.isin(frames, self.held.frame_ids)).any():
            # Each under the prompt that it was edited under: from here on no two rows share one.
            held = torch.from_numpy(np.searchsorted(self.held.frame_ids, frames[rows])).to(device)
            states[-len(frames) :][torch.from_numpy(rows).to(device)] = self.held.states[held]
            self.attention.prompts = None
        self.feed_forwards.cut(len(states))
        injecting: AbstractContextManager[None] = nullcontext()
        if step.passes.inject_conv:
            place = None if step.passes.inject_inside else self._place(frames)
            injecting = self.conv.injecting(len(prompts), source=with_source, place=place)
        with injecting:
            output = self.backbone.predict(torch.cat(latents), step.timestep, states)
        return rearrange(output, "(b f) c h w -> b f c h w", f=len(frames))

    def _record_source(self, step: _Step, frames: np.ndarray) -> None:
        """The source's features at the injected convolution, by a pass of every frame within itself that ends there."""
        self.attention.prompts = 1
        self.feed_forwards.cut(len(frames))
        latents = self._source(step.source, frames, step.timestep)
        with self.attention.during(None), self.conv.recording(), suppress(Halt):
            self.backbone.predict(latents, step.timestep, self.source)

    def _move(self, latents: Tensor, there: Tensor, output: Tensor, step: _Step, frames: np.ndarray) -> Tensor:
        """One guided DDIM step of `latents[there]`, and the clean ones they head for; `output` as `_predict` gives it.

        Changes of the source within `tolerance` are taken back. What the source's own step misses of the stored path
        is added back by `fidelity` ("direct inversion", arXiv 2310.01506). Where both prompts agree, the edit then
        stays on the source.
        """
        schedule, device = self.backbone.schedule, self.backbone.device
        x = latents[there].to(device)
        guided = output[-1] if len(step.prompts) == 1 else cfg(output[-2], output[-1], self.guidance, self.rescale)
        here = self._source(step.source, frames, step.timestep)
        clean, noise = predict_x0_eps(schedule, x, guided, step.timestep)
        if self.tolerance > 0:
            before = predict_x0_eps(schedule, here, output[0], step.timestep)[0]
            clean = before + (clean - before) * significance(clean - before, self.tolerance)
            alpha = schedule.alpha(step.timestep)
            noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        moved = add_noise(schedule, clean, noise, step.target)
        if self.fidelity > 0:
            after = self._source(step.source_after, frames, step.target)
            moved += self.fidelity * (after - ddim_step(schedule, here, output[0], step.timestep, step.target))
        place = self._place(frames)
        if place is not None:
            after = self._source(step.source_after, frames, step.target)
            moved = torch.lerp(after, moved, place[:, None])
        heading = clean
        if step.heading is not None and len(output) > len(step.prompts):
            # The change alone counts: without one the source stays as it is.
            before = predict_x0_eps(schedule, here, output[0], step.timestep)[0]
            heading = to_device(step.clean[frames], device).float() + clean - before
        # Last, as what takes memory may fail, and the part is then begun again.
        latents[there] = moved.to(latents.device)
        if step.heading is not None:
            step.heading[there] = heading.to(latents.device)
        return clean
