"""Work in parts: halved where memory does not do, of one size, written one behind."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.errors import AdaFlowError
from adaflow_core.model import memory
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import Sent, even, in_chunks, in_passes, resident_bytes, writing
from adaflow_core.team.team import Team


def test_chunks_are_halved_and_nothing_is_lost() -> None:
    done: list[int] = []
    tried: list[int] = []

    def work(part: slice) -> None:
        tried.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError
        done.extend(range(part.start, part.stop))

    assert in_chunks(10, 8, work) == 2
    assert done == list(range(10)) and tried == [8, 4, 2, 2, 2, 2, 2]


def test_passes_have_one_size_and_the_last_is_filled_up() -> None:
    passes: list[tuple[list[int], int]] = []

    def work(ids: np.ndarray, count: int) -> None:
        if len(ids) > 4:
            raise torch.OutOfMemoryError
        passes.append((ids.tolist(), count))

    in_passes(np.array([1, 2, 3, 5, 8, 9]), 8, work)
    assert passes == [([1, 2, 3, 5], 4), ([8, 9, 9, 9], 2)]


def test_what_never_fits_is_said() -> None:
    def work(_part: slice) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(AdaFlowError, match="one frame"):
        in_chunks(4, 4, work)


def test_parts_of_about_one_size() -> None:
    assert [even(count, 32) for count in (0, 1, 32, 33, 100, 97)] == [32, 1, 32, 17, 25, 25]
    parts: list[slice] = []
    in_chunks(100, even(100, 32), parts.append)
    assert [part.stop - part.start for part in parts] == [25, 25, 25, 25]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_result_is_written_once_the_next_is_on_its_way_and_all_at_the_end(count: int) -> None:
    out, written = np.zeros((8, 2)), []
    with writing(out) as put:
        for number in range(count):
            put(slice(2 * number, 2 * number + 2), Sent(torch.full((2, 2), number + 1.0)))
            written.append(int((out[:, 0] > 0).sum()))
    assert written == [2 * number for number in range(count)]
    assert out[:, 1].tolist() == [1 + t // 2 if t < 2 * count else 0 for t in range(8)]


def test_what_is_wrong_with_a_result_is_said_when_it_is_asked_for() -> None:
    def check() -> None:
        raise AdaFlowError("it is not finite")

    sent = Sent(torch.zeros(3), check)
    with pytest.raises(AdaFlowError, match="not finite"):
        sent.array()


def test_what_is_too_much_to_be_pinned_comes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*shape: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(memory.torch, "empty", refused)
    assert memory._pinned_like(torch.zeros(3)) is None
    monkeypatch.setattr(memory, "PINNED", 11)
    monkeypatch.setattr(memory.torch, "empty", lambda *shape, **kwargs: pytest.fail("it is too large"))
    assert memory._pinned_like(torch.zeros(3)) is None


def test_a_gpu_takes_more_of_smaller_frames(
    tiny_backbone: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone("sd1")
    assert backbone.chunk_for(64, 64) == backbone.chunk
    monkeypatch.setattr(Backbone, "chunk", property(lambda _: 32))
    gpu = replace(backbone, device=torch.device("cuda"))
    assert [gpu.chunk_for(*size) for size in ((672, 384), (1024, 576), (336, 384), (256, 256), (64, 64))] == [
        32, 32, 64, 96, 128
    ]  # fmt: skip
    assert gpu.chunk_for(256, 256, low_memory=True) == 48
    assert gpu.rows(gpu.chunk_for(64, 64)) == gpu.rows() == 64
    assert gpu.rows(4) == 8
    sizes = (64, 64), (512, 512), (896, 512), (2048, 2048)
    assert [backbone.vae_chunk(*size) for size in sizes] == [4, 4, 2, 1], "elsewhere memory holds fewer large ones too"


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_gpu_shares_out_evenly_and_a_cpu_whole_passes(tiny_backbone: Callable[[str], Backbone], kind: str) -> None:
    def shares(count: int, rows: int, size: int) -> list[tuple[int, int]]:
        team = [replace(tiny_backbone("sd1"), device=torch.device(kind), team=Team(k, size)) for k in range(size)]
        found = [backbone.share(count, rows) for backbone in team]
        assert [i for own, _ in found for i in range(count)[own]] == list(range(count))
        return [(own.stop - own.start, each) for own, each in found]

    if kind == "cuda":
        assert shares(148, 64, 1) == [(148, 50)] and shares(148, 64, 4) == [(37, 37)] * 4
        assert shares(3, 64, 4) == [(1, 1)] * 3 + [(0, 64)]
    else:
        assert shares(148, 64, 1) == [(148, 64)] and shares(148, 64, 2) == [(128, 64), (20, 64)]


@pytest.mark.parametrize("system", ["macOS", "Windows"])
def test_memory_is_told_in_bytes_on_other_systems_too(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    real = builtins.open

    def elsewhere(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path) == "/proc/self/status":
            raise FileNotFoundError(path)
        return real(path, *args, **kwargs)

    here = psutil.Process().memory_info().rss
    # macOS says it in bytes, Linux in KiB.
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=here))
    monkeypatch.setitem(sys.modules, "resource", fake if system == "macOS" else None)
    monkeypatch.setattr(builtins, "open", elsewhere)
    assert here / 2 < resident_bytes() < 2 * here
