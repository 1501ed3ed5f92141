"""Pictures as videos: their kinds in a folder, animations, and what they and videos show through."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video import images
from adaflow_core.video.decode import decode_video, probe
from adaflow_core.video.worker import Answers, Source
from adaflow_core.video.write import write_video
from helpers.films import psnr
from helpers.videos.odd_files import ffmpeg

SIZE = (96, 64)
RED = (220, 30, 30)


def plain(colour: tuple[int, ...] = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, SIZE, colour)


def ramp(highest: float, kind: type) -> Image.Image:
    return Image.fromarray(np.linspace(0, highest, SIZE[0])[None].repeat(SIZE[1], 0).astype(kind))


def saved(folder: Path, **pictures: Image.Image) -> Path:
    """`_1_png` is 1.png."""
    folder.mkdir()
    for name, picture in pictures.items():
        picture.save(folder / ".".join(name.strip("_").rsplit("_", 1)))
    return folder


# --- kinds of pictures in a folder -------------------------------------------------------------------


def test_pictures_of_16_bits_and_transparent_ones(tmp_path: Path) -> None:
    for name in ("grey", "clear"):
        (tmp_path / name).mkdir()
    ramp = np.linspace(0, 65535, 192)[None].repeat(128, 0).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "grey/0.png")
    grey = decode_video(tmp_path / "grey", size=(192, 128))
    assert not grey.notes and psnr(grey.frames[0][..., 0], ramp / 257) > 45
    clear = np.zeros((128, 192, 4), np.uint8)
    clear[:, :96] = 220, 30, 30, 255
    clear[:, 96:, 1] = 220  # green that is not to be seen
    Image.fromarray(clear).save(tmp_path / "clear/0.png")
    video = decode_video(tmp_path / "clear", size=(192, 128))
    assert "transparent" in video.notes[0] and (video.frames[0][:, 120:] == 255).all()
    assert np.abs(video.frames[0][64, 40].astype(int) - (220, 30, 30)).max() <= 1


@pytest.mark.parametrize(("name", "picture", "note"), [
    ("_1_png", ramp(65535, np.uint16), None),
    ("_1_tif", ramp(65535, np.uint16), None),
    ("_1_tif", ramp(1, np.float32), "0 was taken for black and 1 for white"),
])  # fmt: skip
def test_grey_is_scaled_by_its_depth(name: str, picture: Image.Image, note: str | None, tmp_path: Path) -> None:
    video = decode_video(saved(tmp_path / "a", **{name: picture}), size=SIZE)
    assert psnr(video.frames[0][..., 0], np.linspace(0, 255, SIZE[0])[None].repeat(SIZE[1], 0)) > 45
    assert [note is not None and note in said for said in video.notes] == [True] * bool(note)


@pytest.mark.parametrize(("name", "picture"), [
    ("_1_png", plain().quantize(4)), ("_1_jpg", plain().convert("CMYK")), ("_1_webp", plain()), ("_1_bmp", plain()),
])  # fmt: skip
def test_kinds_of_colour(name: str, picture: Image.Image, tmp_path: Path) -> None:
    video = decode_video(saved(tmp_path / "a", **{name: picture}), size=SIZE)
    assert not video.notes and np.abs(video.frames[0][32, 48].astype(int) - RED).max() <= 4


@pytest.mark.parametrize("picture", [plain((30, 220, 30, 0), "RGBA"), plain((30, 0), "LA")])
def test_what_cannot_be_seen_is_white(picture: Image.Image, tmp_path: Path) -> None:
    # The first of them hides nothing: the note is of all.
    video = decode_video(saved(tmp_path / "a", _1_png=plain(), _2_png=picture), size=SIZE)
    assert (video.frames[1] == 255).all() and "laid over white" in video.notes[0]


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    """Red of a wide profile is more than sRGB has; the profile is sRGB's with its primaries exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB", b"test")
    (tmp_path / "a").mkdir()
    plain((255, 0, 0)).save(tmp_path / "a/1.png", icc_profile=swapped)
    red, green, blue = decode_video(tmp_path / "a", size=SIZE).frames[0][32, 48]
    assert green > 250 and red < 5 and blue < 5


def test_what_systems_leave_in_folders_is_no_picture(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", _1_png=plain(), _2_png=plain())
    for name in ("._1.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert probe(folder).frames == 2 and not probe(folder).notes


@pytest.mark.parametrize(("numbers", "said"), [
    (["1", "2", "5", "7"], "(3 to 4, 6)"), (["08", "09", "10"], None), (["10", "20", "30", "50"], "(40)"),
    (["7"], None), (["1a", "1b", "5"], None),
])  # fmt: skip
def test_gaps_in_the_numbers_are_said(numbers: list[str], said: str | None, tmp_path: Path) -> None:
    info = probe(saved(tmp_path / "a", **{f"_f{number}_png": plain() for number in numbers}))
    assert info.frames == len(numbers) and len(info.notes) == (said is not None) and (said or "") in "".join(info.notes)


def test_pictures_of_one_number_are_said(tmp_path: Path) -> None:
    doubled = saved(tmp_path / "a", _f1_png=plain(), _f1_jpg=plain(), _f2_png=plain(), _f3_png=plain())
    (note,) = probe(doubled).notes
    assert note.startswith("a has 2 pictures of number 1 (f1.jpg, f1.png); ")
    more = saved(tmp_path / "b", **{f"_{number}_png": plain() for number in ("1", "01", "2", "02", "3", "5")})
    missing, note = probe(more).notes
    assert "(4)" in missing and "2 pictures of number 1 (" in note and ") and 1 more; " in note


@pytest.mark.parametrize(("second", "part"), [
    (plain().resize((64, 64)), "is 64x64 and the first picture 96x64"),
    (ramp(255, np.float32), "scale them to 0..1"),
])  # fmt: skip
def test_what_cannot_be_taken_is_said(second: Image.Image, part: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", _1_png=plain(), _2_tif=second)
    with pytest.raises(AdaFlowError, match=part):
        decode_video(folder, size=SIZE)


def test_only_of_a_folders_pictures_its_folder_is_spoken(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", _1_png=plain())
    (folder / "2.png").write_text("no picture")
    with pytest.raises(AdaFlowError, match=r"a/2\.png is not a picture .* or take it out of the folder$"):
        probe(folder)
    with pytest.raises(AdaFlowError, match=r"a/2\.png is not a picture .* save it again as PNG with 8 or 16 bits$"):
        images.read_picture(folder / "2.png")
    with pytest.raises(AdaFlowError, match=r"^there is no picture .*a/3\.png; check its path$"):
        images.read_picture(folder / "3.png")


def test_a_picture_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture = plain()
    picture.paste((30, 30, 220), (0, 0, 48, 64))  # blue on the left as stored, and on top as seen
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a/1.jpg", exif=exif, quality=95)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "a/2.jpg", quality=95)
    video = decode_video(tmp_path / "a", size=SIZE[::-1])
    assert not video.notes and psnr(video.frames[0], video.frames[1]) > 30 and video.frames[0][10, 32, 2] > 200


@pytest.mark.parametrize("kind", ["plain", "turned", "turned late"])
def test_probing_a_folder_decodes_none_and_gives_signs_of_life(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, exif = saved(tmp_path / "a", _1_png=plain(), _2_png=plain()), Image.Exif()
    exif[0x0112] = 6
    for path in folder.iterdir():
        if kind != "plain":
            plain().save(path, exif=exif)
        if kind == "turned late":  # behind the pixels, where a PNG may have it too
            data, chunk = path.read_bytes(), b"eXIf" + exif.tobytes()
            begin = data.index(b"eXIf") - 4
            end = begin + 12 + int.from_bytes(data[begin : begin + 4])
            moved = (len(chunk) - 4).to_bytes(4) + chunk + crc32(chunk).to_bytes(4)
            path.write_bytes(data[:begin] + data[end:-12] + moved + data[-12:])
    decoded: list[Path] = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda file: decoded.append(file.filename))
    signs: list[int] = []
    monitor = Monitor(stop=lambda: bool(signs.append(1)))
    info = images.probe(folder, images.index_of(folder, monitor), monitor)
    assert (info.width, info.height) == SIZE[:: 1 if kind == "plain" else -1] and not decoded and len(signs) == 2


def test_thumbnails_of_a_folder_open_just_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "a", **{f"_{n}_png": plain((8 * n,) * 3) for n in range(25)})
    opened: list[str] = []
    plainly = images._upright_rgb
    monkeypatch.setattr(images, "_upright_rgb", lambda *given: (opened.append(given[1].stem), plainly(*given))[1])
    source = Source(folder, Answers(BytesIO()))
    found = [(number, int(picture.mean())) for number, picture in source._scattered(4, list(SIZE))]
    assert found == [(n, 8 * n) for n in (0, 8, 16, 24)] and opened == ["0", "8", "16", "24"]


# --- animations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_an_animation_keeps_its_times(name: str, tmp_path: Path) -> None:
    first, *others = [plain((level,) * 3) for level in (10, 80, 160, 240)]
    options = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=others, duration=[100, 100, 300, 2000], **options)
    video = decode_video(tmp_path / name, size=SIZE)
    assert video.times == pytest.approx([0, 0.1, 0.2, 0.5, 2.5]) and not video.notes
    assert [int(frame.mean()) for frame in video.frames] == pytest.approx([10, 80, 160, 240], abs=1)
    part = decode_video(tmp_path / name, size=SIZE, frames=slice(1, 3))
    assert np.array_equal(part.frames, video.frames[1:3])
    written = write_video(tmp_path / "b.mp4", video.frames, video.fps, audio_from=tmp_path / name, times=video.times)
    assert probe(written).seconds == pytest.approx(2.5, abs=0.01)


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_what_shows_through_an_animation_is_white(name: str, tmp_path: Path) -> None:
    first, second = plain((30, 220, 30, 0), "RGBA"), plain((*RED, 255), "RGBA")
    options = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], duration=100, **options)
    video = decode_video(tmp_path / name, size=SIZE)
    assert (
        (video.frames[0] == 255).all() and tuple(video.frames[1][32, 48]) == RED and "laid over white" in video.notes[0]
    )


# --- videos -----------------------------------------------------------------------------------------

SOURCE = ("-f", "lavfi", "-i", "testsrc=s=720x576:r=25:d=0.4")


@pytest.mark.parametrize(("name", "options"), [
    ("a.y4m", ("-pix_fmt", "yuv420p")), ("a.mxf", ("-c:v", "mpeg2video")), ("a.dv", ("-target", "pal-dv", "-an")),
])  # fmt: skip
def test_containers_of_the_studio_are_read(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    info = probe(ffmpeg(tmp_path / name, *SOURCE, *options))
    assert (info.height, info.frames, info.fps) == (576, 10, 25)
    assert info.width == (768 if name == "a.dv" else 720)  # DV says that its pixels are not square


@pytest.mark.parametrize(("turn", "size"), [(0, (1024, 576)), (90, (576, 1024))])
def test_pixels_that_are_not_square_are_made_so(turn: int, size: tuple[int, int], tmp_path: Path) -> None:
    path = ffmpeg(tmp_path / "a.mp4", *SOURCE, "-vf", "setsar=64/45", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    if turn:
        data = bytearray(path.read_bytes())
        struct.pack_into(">5i", data, data.index(b"tkhd") + 44, 0, 1 << 16, 0, -1 << 16, 0)
        path.write_bytes(data)
    info = probe(path)
    assert (info.width, info.height) == size


@pytest.mark.parametrize(("name", "options", "note"), [
    ("a.mov", ("-c:v", "qtrle", "-pix_fmt", "argb"), "laid over white"),
    ("a.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"), "laid over white"),
    ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"), "not read"),
])  # fmt: skip
def test_what_shows_through_a_video(name: str, options: tuple[str, ...], note: str, tmp_path: Path) -> None:
    source = ("-f", "lavfi", "-i", "color=red@0.5:s=96x64:r=10:d=0.3,format=rgba")
    video = decode_video(ffmpeg(tmp_path / name, *source, *options), size=SIZE)
    assert sum(note in said for said in video.notes) == 1, "beside what is said of more than 8 bits"
    expected = (255, 0, 0) if note == "not read" else (255, 127, 127)
    assert np.abs(video.frames[0][32, 48].astype(int) - expected).max() <= 3
