"""Video files in and out: `probe`, `decode_video`, `from_frames`, `thumbnails`, `write_video`, sizes and ranges."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "decode": ("decode_video", "from_frames", "probe", "thumbnails"),
    "types": ("Video", "VideoInfo", "parse_range", "parse_size", "working_size"),
    "write": ("check_folder", "check_output", "write_video"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the process that decodes imports as little as it can.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
