"""Limits for visitors."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaflow_core.errors import AdaFlowError
from webui.limits import PUBLIC, Limits, limits_of


def test_an_upload_over_the_limit_is_refused(drawn_clip: Path) -> None:
    assert Limits(seconds=2).check(str(drawn_clip)).frames == 12
    with pytest.raises(AdaFlowError, match=r"lasts 1 s; this page takes up to 0\.5 s"):
        Limits(seconds=0.5).check(str(drawn_clip))
    with pytest.raises(AdaFlowError, match=r"pixels; this page takes up to 32 a side"):
        Limits(side=32).check(str(drawn_clip))


def test_strangers_get_less() -> None:
    assert limits_of(True) == PUBLIC and limits_of(False, seconds=None) == Limits()
    changed = limits_of(True, seconds=5.0)
    assert changed.seconds == 5 and changed.megabytes == PUBLIC.megabytes
    assert PUBLIC.keep_seconds < Limits().keep_seconds and PUBLIC.job_seconds < Limits().job_seconds
