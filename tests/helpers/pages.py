"""A page that is served for tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.model.loading import EMBEDDED

HAS_MODEL = (EMBEDDED / "model_index.json").is_file()
with_model = pytest.mark.skipif(not HAS_MODEL, reason="no embedded model in assets/embedded-sd")


def half_size(folder: Path) -> Path:
    """The embedded model at half its working size: a quarter of the time, where pictures need not be good."""
    folder.mkdir(parents=True)
    for part in EMBEDDED.iterdir():
        (folder / part.name).symlink_to(part)
    profile = folder / "adaflow.json"
    settings = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    profile.write_text(json.dumps(settings | {"size": settings["size"] // 2}), encoding="utf-8")
    return folder


@contextmanager
def serve_page(folder: Path, model: str = "embedded", models: tuple[str, ...] = (), **launch: Any) -> Iterator[str]:
    """Serve the page over `model` with its files in `folder`; yields the address."""
    from webui.page import build
    from webui.studio import Studio

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        blocks = build(Studio(model, "cpu", folder / "results", models=models))
        _, url, _ = blocks.launch(
            server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, allowed_paths=[str(folder)], **launch
        )
        yield url
        blocks.close()
