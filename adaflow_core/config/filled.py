"""The settings of an edit once the values that were left open are known: types by which mypy sees that none is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaflow_core.config.edit import GUIDED_FROM, EditConfig

# What is declared under TYPE_CHECKING narrows the type of a field; at run time the fields, and with them the table of
# settings and the keys of the cache, are those of `EditConfig`.


@dataclass(frozen=True, kw_only=True)
class FilledEdit(EditConfig):
    """The settings of an edit with the values of its model and plan, as `resolve_edit` gives them."""

    if TYPE_CHECKING:
        steps: int
        inversion_steps: int
        guidance: float
        guided: float
        negative_prompt: str
        injection_attention: float
        injection_conv: float
        rescale: float
        focus: float
        agreements: int
        smoothing: float
        fidelity: float
        tolerance: float

    @property
    def guided_steps(self) -> range:
        """The steps that are guided, counted from 0."""
        if self.guidance == 1:
            return range(0)
        begin = GUIDED_FROM if self.guided_from is None else self.guided_from
        return range(round(begin * self.steps), round(self.guided * self.steps))


@dataclass(frozen=True, kw_only=True)
class JobEdit(FilledEdit):
    """The settings that an edit runs with: what its words, its frames' size and its device decide is filled in, too."""

    if TYPE_CHECKING:
        structure: float
        stride: int
        chunk: int
