"""What a setting is: a row of a table that the checks, the command line, the page and `settings.md` are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from adaflow_core.errors import AdaFlowError


class ConfigError(AdaFlowError, ValueError):
    """A setting is out of range; the message names the field, its value and the range."""


def setting(default: Any, help: str, **about: Any) -> Any:
    """A field of a configuration, with `help` and `about` for its row of the table (`Setting`)."""
    return field(default=default, metadata={"help": help, **about})


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings: a field's name, type and default, and what `setting` says of it."""

    name: str
    kind: type  # bool, int, float or str, of a value or of each of several
    optional: bool  # may be None: the model, the device or the video decides
    several: bool  # a tuple of values
    default: Any
    help: str  # a phrase
    low: float | None = None  # the range of a number
    high: float | None = None
    choices: tuple[Any, ...] = ()  # those of a Literal are taken from the type
    effect: str = ""  # a sentence on what more of it does

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def takes_auto(self) -> bool:
        """Whether "auto" stands for None on the command line."""
        return self.optional and self.kind in (int, float)

    def checked(self, value: Any) -> Any:
        """`value` as the configuration keeps it, lists as tuples; ConfigError if the setting cannot have it."""
        if value is None and self.optional:
            return None
        if isinstance(value, np.generic):
            value = value.item()
        if self.several and isinstance(value, Iterable):
            value = tuple(value)
        remedy = self._remedy(value)
        if remedy:
            raise ConfigError(
                f"{self.name} is {'empty' if isinstance(value, (str, tuple)) and not value else repr(value)}; {remedy}"
            )
        # 7 and 7.0 are equal, and as texts, such as in a key of the cache, they are not.
        if self.several:
            return tuple(map(self.kind, value))
        return float(value) if self.kind is float else value

    def _remedy(self, value: Any) -> str:
        """What `value` must be instead; empty if it is right."""
        if self.several:
            if not isinstance(value, tuple):
                return "it must be a list such as [1, 2, 4]"
            right = value and all(item in self.choices for item in value)
            return "" if right else f"choose one or more of {', '.join(map(str, self.choices))}"
        if self.choices:
            return "" if value in self.choices else f"choose one of {', '.join(sorted(self.choices))}"
        if self.low is not None and self.high is not None:
            # `not (low <= value <= high)` also catches nan.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not (self.low <= value <= self.high):
                return f"it must lie between {self.low:g} and {self.high:g}"
            return "it must be a whole number" if self.kind is int and not isinstance(value, int) else ""
        remedy = "it must be true or false" if self.kind is bool else "it must be a text"
        return "" if isinstance(value, self.kind) else remedy

    def parse(self, text: str) -> Any:
        """The value that the command line's `text` says; `checked` looks at its range."""
        if self.takes_auto and text == "auto":
            return None
        if self.kind is bool:
            if text.lower() not in ("true", "false"):
                raise AdaFlowError(f"{self.name} is {text!r}; it must be true or false")
            return text.lower() == "true"
        try:
            return tuple(self.kind(part) for part in text.split(",")) if self.several else self.kind(text)
        except ValueError:
            number = "a whole number" if self.kind is int else "a number"
            raise AdaFlowError(f"{self.name} is {text!r}; it must be {number}") from None

    def as_flag(self, value: Any) -> str:
        """The command line's word for a value other than None."""
        if self.kind is bool:
            return self.flag if value else self.flag.replace("--", "--no-", 1)
        return f"{self.flag}={self.as_text(value)}"  # one word: a text may begin with a dash

    def as_text(self, value: Any) -> str:
        """The text that `parse` reads as `value`."""
        return ",".join(map(str, value)) if self.several else str(value)


def settings_of(config: type) -> dict[str, Setting]:
    """The table of settings of a configuration, by name, in the order of its fields."""
    return _settings_of(config)


@cache  # takes what mypy sees to be hashable, and a dataclass is not
def _settings_of(config: type) -> dict[str, Setting]:
    hints, table = get_type_hints(config), {}
    for row in fields(config):
        if not row.metadata:
            raise TypeError(f"{config.__name__}.{row.name} has no setting(...) that says what it is")
        hint, known = hints[row.name], dict(row.metadata)
        optional = NoneType in get_args(hint)
        if optional:
            (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
        several = get_origin(hint) is tuple
        if several:
            hint = get_args(hint)[0]
        elif get_origin(hint) is Literal:
            hint, known["choices"] = str, get_args(hint)
        table[row.name] = Setting(row.name, hint, optional, several, row.default, **known)
    return table


def check(config: Any) -> None:
    """Puts every field of a configuration as the table has it; ConfigError if a setting cannot have its value."""
    for name, row in settings_of(type(config)).items():
        object.__setattr__(config, name, row.checked(getattr(config, name)))


def as_flags(config: Any, usual: Mapping[str, Any]) -> list[str]:
    """The command line's words for the values that differ from the `usual` ones.

    None is left out: it is the default of every setting that may be None.
    """
    given = {name: value for name, value in vars(config).items() if value is not None and value != usual[name]}
    return [settings_of(type(config))[name].as_flag(value) for name, value in given.items()]
