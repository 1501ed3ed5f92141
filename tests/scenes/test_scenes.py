"""The drawn world: edits change what they name and nothing else, and the true flow is true."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scenes import captions, clips, world
from scenes.flow import true_flow, true_flows
from scenes.motion import pose
from scenes.render import geometry, render

SIZE = 64
MIDDLE = torch.tensor([0.5])


@pytest.fixture(scope="module")
def batch() -> world.SceneBatch:
    return world.sample(14, seed=1, split="test")


def _interior(mask: torch.Tensor, margin: int = 2) -> torch.Tensor:
    """The mask [..., H, W] without its border; beyond the frame is outside."""
    outside = F.pad((~mask).float(), [margin] * 4, value=1.0)
    return F.max_pool2d(outside, 2 * margin + 1, 1) < 0.5


def test_shapes_and_range(batch):
    drawn = render(batch, torch.linspace(0, 1, 3), SIZE)
    assert drawn.rgb.shape == (14, 3, 3, SIZE, SIZE)
    assert drawn.ids.shape == (14, 3, SIZE, SIZE) and drawn.ids.dtype == torch.uint8
    assert drawn.coords.shape == (14, 3, 2, SIZE, SIZE) and drawn.coords.dtype == torch.float32
    assert drawn.rgb.isfinite().all() and drawn.rgb.min() >= 0 and drawn.rgb.max() <= 1


def test_the_same_row_draws_the_same_picture_alone_and_in_company(batch):
    together = render(batch, MIDDLE, SIZE).rgb
    assert torch.equal(together, render(world.sample(14, seed=1, split="test"), MIDDLE, SIZE).rgb)
    alone = render(batch[7:8], MIDDLE, SIZE).rgb
    torch.testing.assert_close(together[7:8], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("style", world.STYLES)
def test_a_colour_edit_changes_only_the_object(batch, style):
    source = batch.replace(style=style, colour="red")
    before, after = (render(b, MIDDLE, SIZE) for b in (source, source.replace(colour="blue")))
    outside = _interior(before.ids != 1)[:, :, None].expand_as(before.rgb)
    assert torch.equal(before.rgb[outside], after.rgb[outside])
    assert torch.equal(before.ids, after.ids)
    inside = (before.ids == 1)[:, :, None]
    assert ((before.rgb - after.rgb).abs() * inside).sum() / inside.sum() > 0.2


@pytest.mark.parametrize("style", world.STYLES)
def test_a_background_edit_leaves_the_objects_alone(batch, style):
    source = batch.replace(style=style, background="meadow")
    before, after = (render(b, MIDDLE, SIZE) for b in (source, source.replace(background="night")))
    assert torch.equal(before.ids, after.ids)
    inside = torch.stack([_interior(before.ids == n) for n in (1, 2, 3)]).any(0)
    inside = inside[:, :, None].expand_as(before.rgb)
    torch.testing.assert_close(before.rgb[inside], after.rgb[inside], atol=1e-6, rtol=0)
    assert (before.rgb - after.rgb).abs().mean() > 0.1


def test_a_second_object_comes_and_goes_alone(batch):
    without, with_ = (render(batch.replace(present2=p, occluder=0), MIDDLE, SIZE) for p in (False, True))
    assert (without.ids != 2).all() and (with_.ids == 2).any()


def test_every_attribute_shows(batch):
    row = batch[:1].replace(present2=False, occluder=0, kind="ball", background="snow", style="photo")
    for attribute in ("kind", "colour", "background", "style"):
        names = getattr(world, {"kind": "KINDS", "colour": "COLOURS"}.get(attribute, f"{attribute.upper()}S"))
        pictures = [render(row.replace(**{attribute: name}), MIDDLE, SIZE).rgb for name in names]
        for i, a in enumerate(pictures):
            for b in pictures[:i]:
                assert (a - b).abs().mean() > 1e-3


def _warp(picture: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Fetch frame b [3, H, W] at the ends of the flow [2, H, W]."""
    steps = torch.arange(SIZE2, dtype=torch.float32)
    column, row = flow[0] + steps, flow[1] + steps[:, None]
    grid = torch.stack([column, row], -1)[None] * (2 / (SIZE2 - 1)) - 1
    return F.grid_sample(picture[None], grid, mode="bicubic", align_corners=True)[0]


SIZE2 = 128


@pytest.mark.parametrize("motion", [m for m in world.MOTIONS if m != "cut"])
def test_warping_by_the_true_flow_gives_the_other_frame(motion):
    batch = world.sample(3, seed=3, split="test", motion=motion).replace(style="photo")
    for row in range(len(batch)):
        clip = batch[row : row + 1]
        flow, visible = true_flow(clip, 0.4, 0.55, SIZE2)
        a, b = render(clip, torch.tensor([0.4, 0.55]), SIZE2).rgb[0]
        error = (_warp(b, flow) - a).abs().mean(0)
        assert visible.float().mean() > 0.5
        # Shadows and the light on a turning body stay behind, a few pixels of all.
        assert error[visible].mean() < 0.02
        assert error[visible].median() < 0.01


def test_a_single_time_has_no_flow(batch):
    flows, visible = true_flows(batch[:1], torch.tensor([0.5]), 64)
    assert flows.shape == (0, 2, 64, 64) and visible.shape == (0, 64, 64)


def test_flow_never_crosses_a_cut():
    clip = world.sample(1, seed=3, split="test", motion="cut")
    assert not true_flow(clip, 0.05, 0.95, SIZE)[1].any()
    assert true_flow(clip, 0.05, 0.10, SIZE)[1].any()
    with pytest.raises(ValueError, match="one clip"):
        true_flow(world.sample(2, seed=3), 0.0, 0.1, SIZE)


def test_geometry_is_what_is_drawn(batch):
    drawn = render(batch, MIDDLE, SIZE)
    frames = pose(batch, torch.arange(len(batch)), torch.full((len(batch),), 0.5))
    ids, coords = geometry(frames, SIZE)
    assert torch.equal(ids, drawn.ids[:, 0])
    torch.testing.assert_close(coords, drawn.coords[:, 0])


def test_splits_share_nothing_and_training_leaves_pairs_out():
    batches = {split: world.sample(3000, seed=5, split=split) for split in world.SPLITS}
    seeds = [set(b.seed.tolist()) for b in batches.values()]
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2] and not seeds[1] & seeds[2]
    for split, b in batches.items():
        pairs = set(zip(b.names("kind"), b.names("colour"), strict=True))
        pairs |= set(zip(b.names("kind2"), b.names("colour2"), strict=True))
        pairs |= set(zip(b.names("background"), b.names("style"), strict=True))
        assert bool(pairs & world.HELD_OUT) == (split != "train")
    known = {*world.KINDS, *world.COLOURS, *world.BACKGROUNDS, *world.STYLES}
    assert all(a in known and b in known for a, b in world.HELD_OUT)


def test_edits_for_training_change_attributes_only_and_keep_to_its_pairs():
    source = world.sample(3000, seed=6)
    edited = world.changed(source, seed=1)
    assert torch.equal(edited.kind, world.changed(source, seed=1).kind)
    differs = torch.stack([getattr(source, n) != getattr(edited, n) for n in ("kind", "colour", "background", "style")])
    counts = differs.sum(0)
    assert 0.04 < (counts == 0).float().mean() < 0.12 and 0.1 < (counts == 2).float().mean() < 0.2
    assert counts.max() == 2 and (differs.float().mean(1) > 0.1).all()
    pairs = set(zip(edited.names("kind"), edited.names("colour"), strict=True))
    pairs |= set(zip(edited.names("background"), edited.names("style"), strict=True))
    assert not pairs & world.HELD_OUT
    two = edited[edited.present2.nonzero()[:, 0]]
    assert (two.kind != two.kind2).all() and (two.colour != two.colour2).all()
    for name in ("seed", "place", "sun", "horizon", "present2"):
        assert torch.equal(getattr(source, name), getattr(edited, name))


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_training_frames_show_their_object(motion):
    batch = world.sample(64, seed=2, motion=motion)
    times = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
    frames = pose(batch, torch.arange(64), times[:, 0])
    shown = (geometry(frames, 32)[0] == 1).flatten(1).sum(1)
    # An object of average size covers about 60 of the 1024 pixels.
    assert (shown > 12).float().mean() > 0.95


def test_sampling_repeats_itself_and_rows_can_be_joined():
    a, b = world.sample(5, seed=9), world.sample(5, seed=9)
    assert torch.equal(a.seed, b.seed) and torch.equal(a.place, b.place)
    joined = world.SceneBatch.cat([a[:2], a[2:]])
    assert len(joined) == 5 and torch.equal(joined.kind, a.kind)
    assert a.replace(colour="pink").names("colour") == ["pink"] * 5
    with pytest.raises(ValueError, match="colour"):
        a.replace(colour="crimson")


def test_captions_stay_in_their_vocabulary_and_name_everything():
    known = set(captions.vocabulary())
    batch = world.sample(2000, seed=4)
    sentences = captions.captions(batch, seed=0)
    assert sentences == captions.captions(batch, seed=0)
    assert len(set(sentences)) > 1500
    styles = batch.style.clone()
    styles[0] = (styles[0] + 1) % len(world.STYLES)
    edited = captions.captions(batch.replace(style=styles), seed=0)
    assert edited[0] != sentences[0] and edited[1:] == sentences[1:]  # each row draws its own wording
    for sentence in [*sentences, *captions.plain(batch)]:
        assert set(captions.words(sentence)) <= known, sentence
    for name in (*world.KINDS, *world.COLOURS, *world.BACKGROUNDS, *world.STYLES):
        assert name in known
    row = batch[:1].replace(kind="star", colour="orange", background="snow", style="comic", present2=False)
    assert captions.plain(row) == ["an orange star in the snow, comic style"]


@pytest.mark.parametrize("idea", clips.IDEAS, ids=lambda idea: idea.file)
def test_example_clips_know_their_true_edit(idea):
    entry = clips.describe(idea) | {"frames": 3}
    before, after, mask = clips.truth(entry, size=SIZE)
    assert before.shape == after.shape == (3, SIZE, SIZE, 3) and before.dtype == np.uint8
    assert mask.shape == (3, SIZE, SIZE) and mask.any(axis=(1, 2)).all()
    assert entry["source_prompt"] != entry["prompt"]
    changed = (before != after).any(-1)
    assert changed.any()
    if idea.kind == "colour":  # nothing but the object, and the blend along its edge
        assert not (changed & ~F.max_pool2d(torch.from_numpy(mask).float(), 3, 1, 1).bool().numpy()).any()
