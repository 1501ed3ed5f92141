"""The attention backends against each other, and which of them is taken."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adaflow_core.model import backends as attend
from adaflow_core.model import loading
from adaflow_core.model.backends import _torch_with_sums, attend_in_parts, attend_in_tables, attend_sdpa, pick_attention
from adaflow_core.model.loading import pick_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("table", [1, 300, 2**12, 2**19])
@pytest.mark.parametrize(("B", "H", "n", "m", "d"), [(3, 2, 300, 7, 4), (1, 1, 5, 129, 8), (2, 4, 16, 16, 8)])
def test_tables_of_any_size_give_the_attention(
    monkeypatch: pytest.MonkeyPatch, table: int, B: int, H: int, n: int, m: int, d: int
) -> None:
    monkeypatch.setattr(attend, "TABLE", table)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    # As the processors hand them over: heads are a view into the rows.
    query, key, value = (draw(B, rows, H, width).transpose(1, 2) for rows, width in ((n, d), (m, d), (m, d + 1)))
    weights = torch.einsum("bhnd,bhmd->bhnm", 0.3 * query, key).exp()
    expected = torch.einsum("bhnm,bhme->bhne", weights / weights.sum(-1, keepdim=True), value)
    torch.testing.assert_close(attend_in_tables(query, key, value, 0.3), expected, rtol=0, atol=1e-12)
    rounded = attend_in_tables(query.bfloat16(), key.bfloat16(), value.bfloat16(), 0.3).double()
    assert float((rounded - expected).norm() / expected.norm()) < 0.012


@pytest.mark.parametrize("sampled", [1, 5, 11])
@pytest.mark.parametrize("way", ["sdpa", "tables", "parts"])
def test_sampled_keys_count_as_often_as_they_are_repeated(way: str, sampled: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, rows, 8, generator=generator, dtype=torch.float64) for rows in (7, 12, 12))
    on_cpu = partial(_torch_with_sums, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
    attend = {"sdpa": attend_sdpa, "tables": attend_in_tables, "parts": partial(attend_in_parts, on_cpu)}[way]
    result = attend(query, key, value, 0.3, sampled, 4.0)
    repeats = torch.ones(12, dtype=torch.int64)
    repeats[-sampled:] = 4
    expected = attend_sdpa(query, *(x.repeat_interleave(repeats, dim=2) for x in (key, value)), 0.3)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_auto_takes_what_is_fastest_on_a_cpu() -> None:
    assert pick_attention("auto", CPU, torch.float32) is attend_sdpa
    assert pick_attention("auto", CPU, torch.bfloat16) is attend_in_tables
    assert pick_attention("sdpa", CPU, torch.bfloat16) is attend_sdpa


@pytest.mark.parametrize(("capability", "expected"), [((8, 6), "xformers"), ((9, 0), "sdpa"), ((12, 0), "sdpa")])
def test_from_hopper_on_torch_has_the_faster_attention(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: torch.ones(*shape))  # a probe that needs no GPU
    monkeypatch.setattr(attend, "attend_xformers", tried := (lambda *_: None))
    found = pick_attention("auto", torch.device("cuda"), torch.float16)
    assert found is (tried if expected == "xformers" else attend_sdpa)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_half_precision_on_a_cpu_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: native)
    assert pick_dtype("auto", CPU) == dtype
    assert pick_dtype("float32", CPU) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("said", "warning"), [(["no kernel\nof many"], r"\(no kernel\)"), ([], "NotImplementedError")])
def test_xformers_that_cannot_run_is_replaced_with_a_word(
    said: list[str], warning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Tensor:
        raise NotImplementedError(*said)

    monkeypatch.setattr(attend, "attend_xformers", broken)
    with pytest.warns(UserWarning, match=warning):
        assert pick_attention("xformers", CPU, torch.float32) is attend_sdpa
