"""Reads files of weights in safetensors' format, checks that they are complete, and loads them into modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adaflow_core.errors import AdaFlowError

Header = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
_AT_ONCE = 48  # tensors read before the file is closed: until then its mapped pages count as this process's memory
_PICKLES = (b"PK\x03\x04", b"\x80\x02")  # the first bytes of files by torch.save, today's and older


def read_header(path: Path) -> tuple[Header, dict[str, str]]:
    """Read the shapes and the `__metadata__` of a file; raise AdaFlowError if it is not a complete safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(b"version "):
                raise AdaFlowError(f"{path} is a pointer to a file in Git LFS; fetch the file itself: git lfs pull")
            if path.suffix in (".ckpt", ".pt", ".pth", ".bin") or start.startswith(_PICKLES):
                raise AdaFlowError(
                    f"{path} is a pickle, which can run code; give the checkpoint as .safetensors, or convert it in a "
                    "place that you can lose"
                )
            length = int.from_bytes(start, "little")
            if path.suffix == ".gguf" or length > min(size, 100 * 2**20):
                raise AdaFlowError(f"{path} is damaged, or no .safetensors file; fetch it again")
            data: dict[str, Any] = json.loads(file.read(length))
            remarks = data.pop("__metadata__", {})
            end = max((int(entry["data_offsets"][1]) for entry in data.values()), default=0)
            shapes = {key: tuple(entry["shape"]) for key, entry in data.items()}
    except OSError as problem:
        raise AdaFlowError(f"cannot read {path} ({problem.strerror}); check the path") from problem
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise AdaFlowError(f"{path} is damaged, or no .safetensors file; fetch it again") from problem
    if 8 + length + end != size:
        raise AdaFlowError(
            f"{path} holds {size} bytes of {8 + length + end}: its download is incomplete; fetch it again"
        )
    return shapes, remarks


def read_tensors(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Read tensors of a file; they are memory maps of it until they are copied."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as problem:
        raise AdaFlowError(f"{path} is damaged ({problem}); fetch it again") from problem


def in_parts(path: Path, names: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Yield a file's tensors, a few at a time, renamed by `names` (new name -> name in the file)."""
    keys = list(names)
    for begin in range(0, len(keys), _AT_ONCE):
        chosen = keys[begin : begin + _AT_ONCE]
        read = read_tensors(path, {names[key] for key in chosen})
        yield {key: read[names[key]] for key in chosen}


def fill(module: nn.Module, part: str, path: Path, parts: Iterable[dict[str, Tensor]], dtype: torch.dtype) -> None:
    """Load the tensors of a file into a module without weights; raise AdaFlowError if names or shapes do not fit.

    Tensors are copied as they come, so that at most one of `parts` is in memory twice, and channels-last, the fastest
    layout for convolutions: a change of layout afterwards would have all of them in memory twice.
    """
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    found: set[str] = set()
    for tensors in parts:
        check_names(part, path, (), tensors.keys() - wanted.keys())
        for name, tensor in tensors.items():
            if tensor.shape != wanted[name]:
                raise AdaFlowError(
                    f"{path} does not fit: {name} of its {part} is {list(tensor.shape)}, not {list(wanted[name])}; "
                    "choose a checkpoint of Stable Diffusion 1.x or 2.x"
                )
        found |= tensors.keys()
        copied = {
            name: tensor.to(
                dtype, copy=True, memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            )
            for name, tensor in tensors.items()
        }
        module.load_state_dict(copied, strict=False, assign=True)
    check_names(part, path, wanted.keys() - found, ())


def check_names(part: str, source: object, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise AdaFlowError naming a tensor that `source` lacks, or that the module does not have."""
    for what, names in (("lacks", sorted(missing)), ("holds an unknown", sorted(unexpected))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise AdaFlowError(
                f"the {part} of {source} {what} {names[0]}{more}; it is damaged, or made for another program: fetch "
                "it again, or choose another checkpoint"
            )


def check_finite(module: nn.Module, part: str, source: object) -> None:
    """Raise AdaFlowError naming a tensor with values that are not finite."""
    for name, tensor in module.named_parameters():
        if not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise AdaFlowError(
                f"the {part} of {source} is not finite in {name}; the file is damaged: fetch it again. If it is in "
                "order, its values are too large for half precision: try --dtype float32"
            )


def bit_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor's bit patterns as integers, which is exact and independent of the order."""
    kind = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return tensor.detach().view(kind).sum(dtype=torch.int64)
