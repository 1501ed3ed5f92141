"""The denoising loop: all keyframes jointly, then every other frame along its correspondence.

AdaFlow (arXiv 2502.05433) with Plug-and-Play injection (arXiv 2211.12572). By default what propagates is not a
keyframe's self-attention output but what the edit changed of it: each frame adds that to its own source's output.
Where a correspondence is a little off, the frame then keeps its own detail, and an edit that changes nothing
gives the source back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaflow_core.config import JobEdit
from adaflow_core.editing.agreement import Agreement
from adaflow_core.editing.attention import EditState, KeyframePass, PropagationPass, WithinFrames, editing_attention
from adaflow_core.editing.checkpoint import Checkpoint
from adaflow_core.editing.injection import ConvInjection, StepPasses, injected_conv, step_passes
from adaflow_core.editing.latents import EditNoise, empty_latents
from adaflow_core.editing.tolerance import significance
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import add_noise, cfg, ddim_step, predict_x0_eps, step_targets
from adaflow_core.model.memory import FeedForwards, HostOutputs, Sent, cut_feed_forwards, in_chunks, to_device
from adaflow_core.planning.matching import on_grid
from adaflow_core.progress import Monitor, Stage
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import EditLayout, Embedding, Held, Inversion

Layouts = Callable[[int], EditLayout]
"""Step -> the keyframes, kept tokens and correspondences that hold in it."""


@dataclass(frozen=True)
class _Step:
    """What one denoising step works with."""

    timestep: int
    target: int  # the noise level that it leads to, or CLEAN
    layout: EditLayout
    noise: EditNoise
    source: np.ndarray  # [T, 4, h, w] the inversion's latents at this timestep
    source_after: np.ndarray  # [T, 4, h, w] and at the target
    clean: np.ndarray  # [T, 4, h, w] the source's clean latents
    prompts: list[Tensor]  # [1, L, d] each: negative (where there is guidance) and positive
    passes: StepPasses
    keyframe_pass: KeyframePass
    feed_forwards: FeedForwards
    heading: Tensor | None  # [T, 4, h, w] the clean latents it predicts; None: frames are not to agree after it


class Editor:
    """Runs one edit. The UNet carries its processors and hooks only inside `run`."""

    def __init__(
        self,
        backbone: Backbone,
        source: Embedding,
        negative: Embedding,
        positive: Embedding,
        config: JobEdit,
        monitor: Monitor,
        place: np.ndarray | None = None,  # [T, h, w] 0..1, where the edit takes place; None: everywhere
        held: Held | None = None,  # keyframes that are given
        only: slice = slice(None),  # the frames to edit; beside these only the `held` ones pass through the UNet
        agreement: Agreement | None = None,  # of those frames
    ) -> None:
        self.backbone, self.config, self.monitor, self.team = backbone, config, monitor, backbone.team
        self.chunk, self.fidelity = config.chunk, config.fidelity
        self.coarse = 1.0 if config.coarse is None else config.coarse
        self.tolerance, self.guidance, self.rescale = config.tolerance, config.guidance, config.rescale
        self.source, self.negative, self.positive = (each.prompt_embeds for each in (source, negative, positive))
        self.held, self.only, self.agreement = held, only, agreement
        self.attention = EditState(
            attend=backbone.attend,
            gather=backbone.gather,
            check=monitor.check,
            changes=config.propagation == "change",
            host=HostOutputs() if config.low_memory else None,
        )
        self.conv = ConvInjection()
        # With a focus below 1 the edit also changes what lies outside the place, by the share 1 - focus.
        self.place = None if place is None or not config.focus else 1 - config.focus * (1 - place)
        self.rows = backbone.whole(self.chunk)  # the other frames are shared out to the processes by blocks of so many
        self._last_kept: tuple[EditLayout, dict[int, Tensor]] | None = None
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
        """The edited clean latents [T, 4, h, w] float32, and how many steps a checkpoint had done before.

        The latents lie on the device, or in a file if they are large. `clean` are the source's. `preview` turns the
        keyframes' predicted clean latents [K, 4, h, w] into small pictures [K, h, w, 3] uint8. `checkpoint` keeps the
        latents after each step; a run goes on from the latents that it has.
        """
        unet, S = self.backbone.unet, len(inversion.timesteps)
        noise = EditNoise.of(self.backbone, self.config, inversion, clean)
        x, resumed = self._start(inversion, noise, checkpoint)
        passing, due = len(self._passing(len(x))), [] if self.agreement is None else self.agreement.due(S)
        if self.agreement is not None and due:
            self.agreement.prepare()
        with (
            editing_attention(unet, self.attention),
            forward_hook(injected_conv(unet), self.conv),
            cut_feed_forwards(unet) as feed_forwards,
            self.monitor.stage("edit", (S + len(due)) * passing) as stage,
        ):
            stage.skip((resumed + sum(done <= resumed for done in due)) * passing)
            for i in range(resumed, S):
                heading = empty_latents(x.shape, self.backbone.device) if i + 1 in due else None
                step = self._step(i, inversion, clean, layouts(i), noise, feed_forwards, heading)
                if self.held is not None:
                    held = to_device(self.held.latents[i], self.backbone.device)
                    held = noise.put_into(held, self.held.frame_ids, step.timestep)
                    x[to_device(self.held.frame_ids, x.device)] = held.to(x.device)
                self._keyframes(x, step, stage, preview)
                self._others(x, step, stage)
                self.attention.forget()
                if step.heading is not None:
                    self._agree(x, step, stage)
                if checkpoint is not None and self.team.leads:
                    checkpoint.save(i + 1, x, self.backbone.finite.sent())
        if checkpoint is not None:
            checkpoint.finish()  # raises for values that are not finite, before frames are decoded from them
        return x, resumed

    def _passing(self, T: int) -> np.ndarray:
        """[F] the frames that pass through the UNet."""
        chosen = np.arange(T)[self.only]
        return chosen if self.held is None else np.union1d(chosen, self.held.frame_ids)

    def _start(self, inversion: Inversion, noise: EditNoise, checkpoint: Checkpoint | None) -> tuple[Tensor, int]:
        """The latents to begin from [T, 4, h, w] float32, and how many steps a checkpoint has done of them."""
        x = empty_latents(inversion.latents.shape[1:], self.backbone.device)
        resumed = 0 if checkpoint is None else checkpoint.load(x)
        # Gathering also waits until all processes have read the checkpoint, which the next step replaces.
        found = self.team.gather(torch.tensor([resumed]), self.team.size)
        if int(found.min()) < int(found.max()):  # it was removed between the readings of two of them
            resumed = 0
        if not resumed:
            noise.start(x, inversion, self.coarse, self._place)
        return x, resumed

    def _step(
        self,
        i: int,
        inversion: Inversion,
        clean: np.ndarray,  # [T, 4, h, w]
        layout: EditLayout,
        noise: EditNoise,
        feed_forwards: FeedForwards,
        heading: Tensor | None,  # [T, 4, h, w]
    ) -> _Step:
        """What step `i` works with."""
        last, passes = i + 1 == len(inversion.timesteps), step_passes(self.config, layout)[i]
        return _Step(
            timestep=int(inversion.timesteps[i]),
            target=int(step_targets(self.backbone.schedule, inversion.timesteps)[i]),
            layout=layout,
            noise=noise,
            source=inversion.latents[i],
            source_after=clean if last else inversion.latents[i + 1],
            clean=clean,
            prompts=[self.negative, self.positive][-passes.edits :],
            passes=passes,
            keyframe_pass=KeyframePass(
                edits=passes.edits,
                source=passes.keyframes_source,
                match=layout.correspondence.by_layer,
                inject=passes.inject_attention,
                keep_outputs=len(layout.keyframes) < inversion.latents.shape[1],
                kept=self._kept(layout),
                sample={g.n: (part.num_sampled, part.sample_weight) for g, part in (layout.slimming or {}).items()},
            ),
            feed_forwards=feed_forwards,
            heading=heading,
        )

    def _kept(self, layout: EditLayout) -> dict[int, Tensor] | None:
        """n -> the kept tokens [K, M] int64 on the device, which are copied there once for a layout."""
        if layout.slimming is None:
            return None
        if self._last_kept is None or self._last_kept[0] is not layout:
            kept = {g.n: to_device(part.kept, self.backbone.device).long() for g, part in layout.slimming.items()}
            self._last_kept = layout, kept
        return self._last_kept[1]

    def _keyframes(self, x: Tensor, step: _Step, stage: Stage, preview: Callable[[Tensor], Tensor] | None) -> None:
        """Moves all keyframes of `x` one step on: jointly, or in parts if each attends to itself only.

        Their picture is reported with the first of the other frames, if there are any: a GPU would have no work while
        Python waits for it.
        """
        keyframes, at, team = step.layout.keyframes, step.keyframe_pass, self._team_of(step.layout)
        joint = step.layout.slimming is not None
        own = keyframes[team.own(len(keyframes))]
        parts = [own] if joint else np.array_split(own, max(1, -(-len(own) // self.chunk)))
        for frame_ids in parts:
            there = to_device(frame_ids, x.device)
            place = self._place_by_grid(frame_ids, step)
            output = self._predict(x[there], step, frame_ids, replace(at, place=place, count=len(keyframes), team=team))
            guided = self._move(x, there, output, step, frame_ids)
            if preview is not None and joint:
                self._picture = Sent(preview(team.gather(guided, len(keyframes))))
            if len(self._passing(len(x))) > len(keyframes):
                stage.advance(len(frame_ids))
            else:
                self._advance(stage, len(frame_ids))
        self._exchange(team, x, step, keyframes)
        stage.advance(len(keyframes) - len(own))  # those of the other processes

    def _team_of(self, layout: EditLayout) -> Team:
        """The processes among which the keyframes are shared out; if they cannot be, each process does all of them."""
        K = len(layout.keyframes)
        # Outputs are exchanged within a pass: all processes must make the same number of passes.
        alike = layout.slimming is not None or len(layout.correspondence.slots) == K
        return self.team if self.team.size <= K and alike else ALONE

    def _place(self, frame_ids: np.ndarray) -> Tensor | None:
        """[F, h, w] float32 0..1 on the device."""
        return None if self.place is None else to_device(self.place[frame_ids].astype(np.float32), self.backbone.device)

    def _place_by_grid(self, frame_ids: np.ndarray, step: _Step) -> dict[int, Tensor] | None:
        """n -> [F, n] 0..1, 1 where nothing is injected; None: it is injected everywhere, or nowhere."""
        place = self._place(frame_ids)
        if place is None or step.passes.inject_inside or not step.passes.inject_attention:
            return None
        return {g.n: on_grid(place, g).flatten(1) for g in step.layout.correspondence.index}

    def _others(self, x: Tensor, step: _Step, stage: Stage) -> None:
        """Moves all other frames of `x` one step on; their self-attention is gathered from the keyframes."""
        all_others = np.setdiff1d(self._passing(len(x)), step.layout.keyframes)
        others = all_others[self.team.own(len(all_others), self.rows)]

        def propagate(part: slice) -> None:
            frame_ids = others[part]
            there = to_device(frame_ids, x.device)
            output = self._predict(x[there], step, frame_ids, self._propagation_pass(step, frame_ids))
            self._move(x, there, output, step, frame_ids)
            self._advance(stage, len(frame_ids))

        size = self.backbone.pass_size(len(others), self.chunk)
        found = in_chunks(len(others), size, propagate)
        if found < size:  # memory did not suffice for `size`
            self.chunk = found
        self._exchange(self.team, x, step, all_others, self.rows)
        self._advance(stage, len(all_others) - len(others))

    def _advance(self, stage: Stage, count: int) -> None:
        """Reports `count` more frames as done, with the keyframes' picture if it is not reported yet."""
        picture, self._picture = self._picture, None
        stage.advance(count, preview=None if picture is None else picture.array())

    @staticmethod
    def _exchange(team: Team, x: Tensor, step: _Step, frame_ids: np.ndarray, rows: int = 1) -> None:
        """Gives every process the latents of all the frames `frame_ids`, of which each has made its own part."""
        for latents in (x, step.heading):
            if latents is not None:
                team.exchange(latents, to_device(frame_ids, latents.device), rows)

    def _agree(self, x: Tensor, step: _Step, stage: Stage) -> None:
        """Adds to `x`, as it is after the step, a correction that makes the edited frames agree."""
        assert self.agreement is not None and step.heading is not None
        frame_ids = np.arange(len(x))[self.only]
        own = frame_ids[self.team.own(len(frame_ids))]
        correction = self.agreement.correction(step.heading[self.only], stage.advance)
        place = self._place(own)
        if place is not None:
            correction *= place[:, None]
        there = to_device(own, x.device)
        x[there] += (self.backbone.schedule.alpha(step.target) ** 0.5 * correction).to(x.device)
        self.team.exchange(x, to_device(frame_ids, x.device))
        stage.advance(len(self._passing(len(x))) - len(own))

    def _propagation_pass(self, step: _Step, frame_ids: np.ndarray) -> PropagationPass:
        device, correspondence = self.backbone.device, step.layout.correspondence
        slots, used = correspondence.slots[frame_ids], None
        # If each frame has the same keyframe in both slots, the second one has no weight.
        P = 1 if (slots == slots[:, :1]).all() else 2
        if self.attention.host is not None:
            places, slots = np.unique(slots, return_inverse=True)
            used, slots = places.tolist(), slots.reshape(len(frame_ids), -1)
        return PropagationPass(
            slots=to_device(slots[:, :P], device),
            index={g.n: to_device(index[frame_ids, :P], device).long() for g, index in correspondence.index.items()},
            weights={g.n: to_device(weights[frame_ids, :P], device) for g, weights in correspondence.weights.items()},
            source=step.passes.whole_source,
            match=correspondence.by_layer,
            used=used,
        )

    def _predict(
        self, x: Tensor, step: _Step, frame_ids: np.ndarray, at: KeyframePass | PropagationPass
    ) -> Tensor:  # [F, 4, h, w] -> [1 to 3, F, 4, h, w]
        """The UNet's output by branch: the source's if it rides along in the pass `at`, then the edit's."""
        if step.passes.inject_conv and not at.source:
            self._record_source(step, frame_ids)
        device = self.backbone.device
        latents, prompts = [x.to(device)] * len(step.prompts), list(step.prompts)
        if at.source:
            latents.insert(0, step.noise.source(step.source, frame_ids, step.timestep))
            prompts.insert(0, self.source)
        count, prompt_embeds = self._by_row(prompts, frame_ids)
        injecting: AbstractContextManager[None] = nullcontext()
        if step.passes.inject_conv:
            place = None if step.passes.inject_inside else self._place(frame_ids)
            injecting = self.conv.injecting(len(prompts), source=at.source, place=place)
        with injecting:
            output = self._pass(torch.cat(latents), step, prompt_embeds, replace(at, prompts=count))
        return rearrange(output, "(b f) c h w -> b f c h w", f=len(frame_ids))

    def _by_row(self, prompts: list[Tensor], frame_ids: np.ndarray) -> tuple[int | None, Tensor]:
        """The prompts [1, L, d] of some branches for each row of their batch [branches*F, L, d], and how many they are,
        each for as many frames; None: another one for each row."""
        prompt_embeds = torch.cat([prompt.expand(len(frame_ids), -1, -1) for prompt in prompts])
        if self.held is None or not (rows := np.isin(frame_ids, self.held.frame_ids)).any():
            return len(prompts), prompt_embeds
        # The held keyframes stay under the prompts that they were edited under.
        device = self.backbone.device
        held = torch.from_numpy(np.searchsorted(self.held.frame_ids, frame_ids[rows])).to(device)
        prompt_embeds[-len(frame_ids) :][torch.from_numpy(rows).to(device)] = self.held.prompt_embeds[held]
        return None, prompt_embeds

    def _record_source(self, step: _Step, frame_ids: np.ndarray) -> None:
        """Records the source's features at the injected convolution, by a pass that ends there."""
        latents = step.noise.source(step.source, frame_ids, step.timestep)
        with self.conv.recording(), suppress(Halt):
            self._pass(latents, step, self.source, WithinFrames(prompts=1))

    def _pass(
        self, latents: Tensor, step: _Step, prompt_embeds: Tensor, at: KeyframePass | PropagationPass | WithinFrames
    ) -> Tensor:  # [B, 4, h, w] -> [B, 4, h, w]
        """One pass of the UNet; what its layers read beside its input is set here, and for this pass only."""
        step.feed_forwards.cut(len(latents))
        with self.attention.during(at):
            return self.backbone.predict(latents, step.timestep, prompt_embeds)

    def _move(self, latents: Tensor, there: Tensor, output: Tensor, step: _Step, frame_ids: np.ndarray) -> Tensor:
        """One guided DDIM step of `latents[there]`; returns the predicted clean latents [F, 4, h, w].

        `output` is as `_predict` gives it. Changes of the source within `tolerance` are taken back. By `fidelity`, the
        error of the source's own step against the stored inversion is added back ("direct inversion", arXiv
        2310.01506): where both prompts agree, the edit then stays on the source.
        """
        schedule, device = self.backbone.schedule, self.backbone.device
        x = latents[there].to(device)
        guided = output[-1] if len(step.prompts) == 1 else cfg(output[-2], output[-1], self.guidance, self.rescale)
        here = step.noise.source(step.source, frame_ids, step.timestep)
        clean, noise = predict_x0_eps(schedule, x, guided, step.timestep)
        if self.tolerance > 0:
            before = predict_x0_eps(schedule, here, output[0], step.timestep)[0]
            clean = before + (clean - before) * significance(clean - before, self.tolerance)
            alpha = schedule.alpha(step.timestep)
            noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        moved = add_noise(schedule, clean, noise, step.target)
        if self.fidelity > 0:
            after = step.noise.source(step.source_after, frame_ids, step.target)
            moved += self.fidelity * (after - ddim_step(schedule, here, output[0], step.timestep, step.target))
        place = self._place(frame_ids)
        if place is not None:
            after = step.noise.source(step.source_after, frame_ids, step.target)
            moved = torch.lerp(after, moved, place[:, None])
        heading = clean
        # Where only keyframes carry the source, they would head for something else than the others.
        if step.heading is not None and step.passes.whole_source:
            # The source's clean latents with the change of their prediction: without a change the source stays.
            before = predict_x0_eps(schedule, here, output[0], step.timestep)[0]
            heading = to_device(step.clean[frame_ids], device).float() + clean - before
        # Last: if memory runs out above, the part is begun again from latents that are not changed yet.
        latents[there] = moved.to(latents.device)
        if step.heading is not None:
            step.heading[there] = heading.to(latents.device)
        return clean
