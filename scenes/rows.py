"""Structs of tensors, one row a clip or a frame."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class Rows:
    """A frozen dataclass of tensors (or of other `Rows`) that share their first dimension."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def _map(self, change: Callable[[Any], Any]) -> Self:
        return replace(self, **{f.name: change(getattr(self, f.name)) for f in fields(self)})  # type: ignore

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Self:
        """The rows of a slice, an index tensor or a list; one row is `batch[i : i + 1]`."""
        index = torch.as_tensor(rows) if isinstance(rows, (list, tuple)) else rows
        return self._map(lambda value: value[index])

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda value: value.to(device))

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        """The rows of all batches, in order."""

        def join(parts: list[Any]) -> Any:
            return torch.cat(parts) if isinstance(parts[0], Tensor) else type(parts[0]).cat(parts)

        return cls(**{f.name: join([getattr(b, f.name) for b in batches]) for f in fields(cls)})  # type: ignore
