"""Chooses the files of a checkpoint to download: one precision of each part, its configurations, nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from adaflow_core.errors import AdaFlowError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SAFETY = ("safety_checker", "feature_extractor")
INDEX, PROFILE = "model_index.json", "adaflow.json"
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)((?:\.fp16|-\d{5}-of-\d{5})*)\.safetensors")
_SHARDS = re.compile(r"(?:diffusion_pytorch_model|model)\.(?:fp16\.)?safetensors\.index(?:\.fp16)?\.json")
_PICKLE = re.compile(r".*\.(?:bin|ckpt|pt|pth)")


def parts_of(folder: Path, wanted: Collection[str]) -> list[str]:
    """Return those of the `wanted` parts that the checkpoint has."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [part for part in wanted if isinstance(index.get(part), list) and index[part][-1]]


def configurations(names: Collection[str], parts: Collection[str]) -> list[str]:
    """Return the small files: configurations and vocabularies of the parts, and the model's profile (adaflow.json)."""
    found = [name for name in names if name.rpartition("/")[0] in parts and name.endswith((".json", ".txt"))]
    return [name for name in (*found, *({PROFILE} & set(names))) if not _SHARDS.fullmatch(name.rpartition("/")[2])]


def weights(names: Collection[str], part: str, half: bool) -> list[str]:
    """Return the files of a part's weights, with the index of its shards; [] if it has none.

    `half`: in half precision, if there. Raises AdaFlowError if all weights are pickled.
    """
    inside = [name for name in names if name.rpartition("/")[0] == part]
    found = [name for name in inside if _is_weights(name)]
    halves = [name for name in found if ".fp16" in name]
    full = [name for name in found if name not in halves]
    if not found and any(_PICKLE.fullmatch(name) for name in inside):
        raise AdaFlowError(
            f"the {part} is there only as pickled weights, which can run code and are not read; choose a revision or "
            "a model with safetensors, or convert it"
        )
    return (halves or full) if half else (full or halves)


def the_file(repo: str, names: Collection[str], named: str = "", usual: Collection[str] = ()) -> str:
    """Return the file `named`, or the first of the usual names that exists, or the only file of weights.

    Raises AdaFlowError, with a list of files, if there is no such file or there are several.
    """
    found = [name for name in names if name.endswith(".safetensors")]
    for name in (named,) if named else (*usual, *(found if len(found) == 1 else ())):
        if name in found:
            return name
    if found:
        listed = ", ".join(f"{repo}/{name}" for name in sorted(found)[:5])
        raise AdaFlowError(f"which file of {repo} is meant? Name one: {listed}{', …' if len(found) > 5 else ''}")
    pickled = " (its pickled files can run code and are not read)" if any(map(_PICKLE.fullmatch, names)) else ""
    raise AdaFlowError(f"{repo} has no .safetensors file{pickled}; choose another")


def _is_weights(name: str) -> bool:
    file = name.rpartition("/")[2]
    return bool(_WEIGHTS.fullmatch(file) or _SHARDS.fullmatch(file))


def is_complete(folder: Path, wanted: Collection[str], half: bool) -> bool:
    """Whether a folder has all wanted parts; weights in full precision count for `half` too."""
    if not (folder / INDEX).is_file():
        return False
    for part in parts_of(folder, wanted):
        there = {path.name for path in (folder / part).glob("*") if path.is_file()}
        if not there:
            return False
        if "config.json" in there and not _has_weights(folder / part, there, half):
            return False
    return True


def _has_weights(folder: Path, there: Collection[str], half: bool) -> bool:
    for precision in (True, False) if half else (False,):
        names = [n for n in there if _is_weights(n) and (".fp16" in n) == precision]
        indices = [name for name in names if name.endswith(".json")]
        if indices:
            index: Mapping[str, Any] = json.loads((folder / indices[0]).read_text(encoding="utf-8"))
            if set(index["weight_map"].values()) <= set(there):
                return True
        elif names and "-of-" not in names[0]:
            return True
    return False
