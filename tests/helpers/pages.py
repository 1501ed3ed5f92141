"""A page that is served for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.model.loading import EMBEDDED

HAS_MODEL = (EMBEDDED / "model_index.json").is_file()
with_model = pytest.mark.skipif(not HAS_MODEL, reason="no embedded model in assets/embedded-sd")


@contextmanager
def serve_page(folder: Path, models: tuple[str, ...] = (), **launch: Any) -> Iterator[str]:
    """Serve the page over the embedded model with its files in `folder`; yields the address."""
    from webui.page import build
    from webui.studio import Studio

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        blocks = build(Studio("embedded", "cpu", folder / "results", models=models))
        _, url, _ = blocks.launch(
            server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, allowed_paths=[str(folder)], **launch
        )
        yield url
        blocks.close()
