"""The embedded model: its folder, tokenizer and training steps; and the shipped weights, if they are here."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.model.ddim import add_noise, edit_timesteps
from adaflow_core.model.loading import load_backbone
from adaflow_core.progress import Monitor
from scenes.captions import captions, plain, vocabulary
from scenes.training import embedded
from scenes.training.autoencoder import latent_means, standardise, vae_loss
from scenes.training.classifier import ATTRIBUTES, Judge, judge_loss, load_judge, save_judge
from scenes.training.diffusion import diffusion_loss, found_noise, shared_noise, train_diffusion
from scenes.training.loop import Clock, Options, Trainee, learning_rate
from scenes.training.pool import BRANCHES, CAPTIONS_PER_SCENE, Described, Ring, draw, moments, unit
from scenes.training.train import unpack
from scenes.world import sample

SIZE = 64
SHIPPED = Path(__file__).parents[2] / "assets" / "embedded-sd"
SHIPPED_JUDGE = SHIPPED.with_name("judge")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "embedded"
    embedded.save(embedded.build(vocabulary(), size=SIZE), path)
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> StableDiffusionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def options(**changes) -> Options:
    return Options(**{"out": Path("unused"), "device": CPU, "steps": 10, **changes})


def test_folder_keeps_the_limits_and_names_no_path(folder: Path) -> None:
    sizes = embedded.check_limits(folder)
    assert all(name.count("/") <= 1 for name in sizes)
    for path in folder.rglob("*.json"):
        assert "_name_or_path" not in path.read_text() and str(folder.parent) not in path.read_text()
    profile = json.loads((folder / embedded.PROFILE).read_text())
    assert profile["size"] == SIZE and {"red", "ball"} <= set(profile["vocabulary"])


def test_layout_is_stable_diffusions(pipe: StableDiffusionPipeline) -> None:
    unet, vae, scheduler = pipe.unet.config, pipe.vae.config, pipe.scheduler.config
    assert tuple(unet.down_block_types) == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert tuple(unet.up_block_types) == ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    assert (unet.layers_per_block, len(vae.block_out_channels), vae.latent_channels) == (2, 4, 4)
    blocks = [block.attentions[0].transformer_blocks[0] for block in pipe.unet.down_blocks[:3]]
    assert [block.attn1.heads for block in blocks] == [1, 2, 4]
    assert (scheduler.beta_schedule, scheduler.prediction_type) == ("scaled_linear", "epsilon")
    assert sum(weight.numel() for weight in pipe.unet.parameters()) < 10e6
    assert sum(weight.numel() for weight in pipe.vae.parameters()) < 1.2e6
    assert sum(weight.numel() for weight in pipe.text_encoder.parameters()) < 1e6


def test_tokenizer_round_trip(pipe: StableDiffusionPipeline) -> None:
    built, loaded = embedded.build_tokenizer(vocabulary()), pipe.tokenizer
    texts = [*captions(sample(64, seed=1), 1), "", "A RED ball, in the snow.", "a zeppelin; 3 red-ish balls!"]
    settings = {"padding": "max_length", "truncation": True}
    assert built(texts, **settings).input_ids == loaded(texts, **settings).input_ids
    assert loaded.model_max_length == embedded.TOKENS == len(loaded("red " * 200, **settings).input_ids)


def test_known_words_are_single_tokens_and_others_unknown(pipe: StableDiffusionPipeline, folder: Path) -> None:
    tokenizer = pipe.tokenizer
    words = {part for word in vocabulary() for part in word.lower().split()}
    for word in words:
        begin, *tokens, end = tokenizer(word.upper()).input_ids
        assert (begin, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id
    assert tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.pad_token_id)
    backbone = load_backbone(str(folder), device="cpu")
    assert backbone.embed("A red Zeppelin over a zeppelin, café").unknown == ("zeppelin", "café")


def test_world_speaks_only_known_words(pipe: StableDiffusionPipeline) -> None:
    batch = sample(256, seed=2, split="test")
    for text in captions(batch, 0) + plain(batch):
        assert pipe.tokenizer.unk_token_id not in pipe.tokenizer(text).input_ids


def test_a_saved_folder_loads_in_one_precision(folder: Path) -> None:
    loaded = StableDiffusionPipeline.from_pretrained(folder)
    assert {part.dtype for part in (loaded.unet, loaded.vae, loaded.text_encoder)} == {torch.float32}


def test_pipeline_draws(pipe: StableDiffusionPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    image = pipe("a red ball", num_inference_steps=2, generator=generator, output_type="np").images[0]
    assert image.shape == (SIZE, SIZE, 3) and np.isfinite(image).all()


def test_saving_keeps_a_tuned_profile(tmp_path: Path) -> None:
    pipe = embedded.build(["red"], size=SIZE)
    embedded.save(pipe, tmp_path / "model")
    (tmp_path / "model" / embedded.PROFILE).write_text('{"tuned": true}')
    embedded.save(pipe, tmp_path / "model")
    assert json.loads((tmp_path / "model" / embedded.PROFILE).read_text()) == {"tuned": True}
    assert next(pipe.unet.parameters()).dtype == torch.float32


def test_pack_round_trip(folder: Path, tmp_path: Path) -> None:
    tars = embedded.pack(folder, tmp_path / "tars")
    assert len(tars) <= 3 and all(tar.stat().st_size <= embedded.MAX_TAR_BYTES for tar in tars)
    save_judge(Judge(), tmp_path / "judge")
    embedded.pack(tmp_path / "judge", tmp_path / "tars")  # as train_all.sh leaves it there
    unpack(tmp_path / "tars", tmp_path / "again")
    assert not (tmp_path / "again" / "judge.json").exists()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_training_steps_lower_the_loss() -> None:
    pipe = embedded.build(vocabulary(), size=SIZE)
    target = unit(draw(sample(4, seed=0), moments(4, 0), SIZE, CPU)[0])
    torch.manual_seed(0)
    noise = torch.randn(4, 4, SIZE // 8, SIZE // 8)
    trainee = Trainee({"vae": pipe.vae}, options())
    before = vae_loss(trainee.working["vae"], target, noise)
    for _ in range(2):
        trainee.step(vae_loss(trainee.working["vae"], target, noise), 1e-3)
    assert vae_loss(trainee.working["vae"], target, noise) < before

    trainee = Trainee({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, options())
    tokens = pipe.tokenizer(plain(sample(4, seed=0)), padding="max_length", return_tensors="pt").input_ids
    timesteps = torch.tensor([10, 300, 600, 900])

    def loss() -> torch.Tensor:
        text = trainee.working["text_encoder"](tokens)[0]
        alphas = pipe.scheduler.alphas_cumprod
        return diffusion_loss(trainee.working["unet"], noise.flip(0), noise, timesteps, text, alphas, snr_cap=5.0)

    before = loss()
    for _ in range(2):
        trainee.step(loss(), 1e-3)
    assert loss() < before


@pytest.mark.thorough
def test_the_diffusion_stage_learns_under_injection_and_saves_a_plain_pipeline(folder: Path, tmp_path: Path) -> None:
    given = options(out=tmp_path, resume=folder, steps=2, batch=6, size=SIZE, chunk=4, fill=8, pool=16)
    train_diffusion(given)
    before, after = embedded.load(folder), embedded.load(tmp_path)
    assert after.unet.attn_processors.keys() == before.unet.attn_processors.keys()
    for name in ("unet", "text_encoder"):
        old, new = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert all(value.isfinite().all() for value in new.values())
        assert any(not torch.equal(old[key], new[key]) for key in old)
    for key, value in before.vae.state_dict().items():
        assert torch.equal(value, after.vae.state_dict()[key])


def test_averages_and_computing_copy_follow_the_weights() -> None:
    judge = Judge()
    trainee = Trainee({"judge": judge}, options())
    images, truth = torch.rand(4, 3, 32, 32), torch.zeros(4, 4, dtype=torch.long)
    trainee.step(judge_loss(trainee.working["judge"], images, truth), 1e-3)
    for name in ("working", "averages"):  # the first step's average is the weights themselves
        for copied, weight in zip(getattr(trainee, name)["judge"].parameters(), judge.parameters(), strict=True):
            torch.testing.assert_close(copied, weight, check_dtype=False)


def test_standardised_latents_decode_to_the_same_pictures() -> None:
    vae = embedded.build_vae(SIZE).requires_grad_(False)
    pictures = draw(sample(8, seed=0), moments(8, 0), SIZE, CPU)[0]
    before = vae.decode(vae.encode(unit(pictures)).latent_dist.mode()).sample
    spread = vae.encode(unit(pictures)).latent_dist.std / latent_means(vae, pictures).std((0, 2, 3))[:, None, None]
    standardise(vae, pictures)
    posterior = vae.encode(unit(pictures)).latent_dist
    torch.testing.assert_close(vae.decode(posterior.mode()).sample, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(posterior.std, spread, atol=1e-4, rtol=1e-3)
    means = latent_means(vae, pictures)
    torch.testing.assert_close(means.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(means.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_learning_rate_warms_up_and_decays() -> None:
    clock = Clock(None, 100)
    rates = []
    for _ in range(100):
        rates.append(learning_rate(clock, 1.0, 0.1))
        clock.tick()
    assert rates[0] < 0.2 and 0.9 < max(rates) <= 1.0 and 0.1 <= rates[-1] < 0.11


def test_ring_overwrites_its_oldest_rows() -> None:
    ring = Ring(5)
    ring.write(value=torch.arange(4))
    assert set(ring.sample(64)["value"].tolist()) <= {0, 1, 2, 3}
    ring.write(value=torch.arange(4, 8))
    assert sorted(ring.rows["value"].tolist()) == [3, 4, 5, 6, 7]


def test_described_edits_match_their_captions(folder: Path, pipe: StableDiffusionPipeline) -> None:
    scenes = Described(folder / "tokenizer", 64, seed=5, workers=0, branches=BRANCHES)
    batches, tokens = next(scenes)
    assert len(batches) == BRANCHES
    assert tokens.shape == (64, BRANCHES, CAPTIONS_PER_SCENE, embedded.TOKENS) and tokens.dtype == np.int16
    for branch, batch in enumerate(batches):
        expected = pipe.tokenizer(captions(batch, 5 * CAPTIONS_PER_SCENE), padding="max_length").input_ids
        found = tokens[:, branch, 0]
        same = (found == np.array(expected)).all(1)
        assert 0.7 < same.mean() < 1.0  # the others got an unknown word
        assert (found[~same] == pipe.tokenizer.unk_token_id).any(1).all()
    assert torch.equal(batches[0].seed, batches[1].seed)


def test_an_edit_starts_from_the_latents_of_its_source() -> None:
    alphas = torch.linspace(0.999, 0.01, 1000)
    latents = torch.randn(3, BRANCHES, 4, 2, 2)
    start = torch.tensor([900, 950, 999])
    noise = shared_noise(latents, torch.randn(latents[:, 0].shape), start, alphas)
    alpha = alphas[start][:, None, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    for branch in range(1, BRANCHES):
        torch.testing.assert_close(noisy[:, branch], noisy[:, 0], rtol=1e-4, atol=1e-5)


def test_the_noise_found_in_training_is_that_of_the_engines_inversion(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(folder), device="cpu", dtype="float32")
    latents = torch.randn(2, 4, SIZE // 8, SIZE // 8)
    noise, start = found_noise(
        backbone.unet, latents, backbone.embed("a red ball").prompt_embeds.expand(2, -1, -1), backbone.schedule, 5
    )
    invert(
        backbone, latents.numpy(), "a red ball",
        steps=5, inversion_steps=5, rows=2, folder=tmp_path, monitor=Monitor(),
    )  # fmt: skip
    found = load_inversion(tmp_path, backbone, 5, "a red ball").latents
    assert start == edit_timesteps(backbone.schedule, 5)[0]
    again = add_noise(backbone.schedule, latents, noise, start)
    torch.testing.assert_close(again, torch.from_numpy(np.array(found[0])), rtol=1e-4, atol=1e-4)


def test_drawn_pictures_keep_the_order_of_their_scenes() -> None:
    batch, times = sample(6, seed=0), moments(6, 0)
    pictures, _ = draw(batch, times, SIZE, CPU)
    alone = [draw(batch[i : i + 1], times[i : i + 1], SIZE, CPU)[0] for i in range(6)]
    for i, one in enumerate(alone):
        assert (pictures[i].float() - one[0].float()).abs().mean() < 0.5


def test_judge_round_trip(tmp_path: Path) -> None:
    judge = Judge()
    assert sum(weight.numel() for weight in judge.parameters()) < 500_000
    save_judge(judge, tmp_path)
    found = load_judge(tmp_path).predict(torch.rand(2, 3, SIZE, SIZE))
    assert {name: values.shape for name, values in found.items()} == {name: (2,) for name in ATTRIBUTES}
    (tmp_path / "judge.json").write_text('{"words": {}}')
    with pytest.raises(ValueError, match="another vocabulary"):
        load_judge(tmp_path)


@pytest.mark.parametrize("name", ["embedded-sd", "plain-sd"])
def test_shipped_folders_run_in_plain_diffusers(name: str) -> None:
    shipped = SHIPPED.with_name(name)
    if not shipped.exists():
        pytest.skip(f"{name} is not in assets/")
    plain_pipe = StableDiffusionPipeline.from_pretrained(shipped)  # no dtype: as the model card says
    plain_pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = plain_pipe("a red ball", num_inference_steps=2, output_type="np", generator=generator).images
    assert images.shape == (1, 256, 256, 3) and np.isfinite(images).all() and images.std() > 0.05


@pytest.mark.skipif(not SHIPPED.exists(), reason="the embedded model is not in assets/")
def test_shipped_model_draws_what_the_prompt_asks() -> None:
    embedded.check_limits(SHIPPED)
    pipe = embedded.load(SHIPPED)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.tokenizer.unk_token_id not in pipe.tokenizer(" ".join(vocabulary())).input_ids
    prompt = "a red ball on the ocean, photo"
    images = pipe(
        [prompt] * 4,
        num_inference_steps=12,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    assert images.isfinite().all() and images.std() > 0.05
    if SHIPPED_JUDGE.exists():
        found = load_judge(SHIPPED_JUDGE).predict(images)
        asked = {"kind": "ball", "colour": "red", "background": "ocean", "style": "photo"}
        for name, word in asked.items():
            assert (found[name] == ATTRIBUTES[name].index(word)).float().mean() >= 0.75, name
