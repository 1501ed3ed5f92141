"""The names of a model's files: a checkpoint, LoRAs, another VAE, textual inversions."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaflow_core.errors import AdaFlowError

_FLAGS = ("--lora", "--vae", "--embedding")


@dataclass(frozen=True)
class ModelParts:
    """The names of a model's files, as a user gives them. Each is a path or an id of the Hub."""

    model: str = "embedded"
    loras: tuple[str, ...] = ()  # "FILE" or "FILE=WEIGHT"
    vae: str = ""  # in place of the checkpoint's own
    embeddings: tuple[str, ...] = ()  # "FILE" or "FILE=WORD": textual inversions

    def with_more(self, loras: Sequence[str] = (), vae: str = "", embeddings: Sequence[str] = ()) -> ModelParts:
        """Return the parts with more LoRAs and embeddings; `vae` replaces the VAE that is named."""
        return ModelParts(self.model, (*self.loras, *loras), vae or self.vae, (*self.embeddings, *embeddings))

    def renamed(self, change: Callable[[str], str]) -> ModelParts:
        """Return the parts with every file's name changed by `change`; a weight or word behind it stays."""

        def changed(name: str) -> str:
            file, value = split_value(name)
            return f"{change(file)}={value}" if value else change(file)

        loras, embeddings = (tuple(map(changed, names)) for names in (self.loras, self.embeddings))
        return ModelParts(change(self.model), loras, self.vae and change(self.vae), embeddings)

    @property
    def flags(self) -> list[str]:
        """The command line's flags for all parts but the checkpoint."""
        return [f"{flag}={name}" for flag, name in self._given]

    @property
    def _given(self) -> list[tuple[str, str]]:
        groups = zip(_FLAGS, (self.loras, (self.vae,) if self.vae else (), self.embeddings), strict=True)
        return [(flag, name) for flag, names in groups for name in names]

    def __str__(self) -> str:
        """The model's name in plans and reports, which `parse` reads."""
        return " ".join([self.model, *(f"{flag}={shlex.quote(name)}" for flag, name in self._given)])

    @classmethod
    def parse(cls, text: str) -> ModelParts:
        """Parse a checkpoint's name with the command line's flags behind it: `sd15 --lora=pixel.safetensors=0.8`."""
        model, *rest = re.split(r"\s+(?=--(?:lora|vae|embedding)\b)", text.strip(), maxsplit=1)
        lexer = shlex.shlex(" ".join(rest), posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        lexer.escape = ""  # a backslash is part of a path on Windows
        try:
            words = iter(list(lexer))
        except ValueError as problem:
            raise AdaFlowError(f"the model {text!r} cannot be read; close its quotation marks") from problem
        found: dict[str, list[str]] = {flag: [] for flag in _FLAGS}
        for word in words:
            flag, equals, value = word.partition("=")
            if flag not in found:
                raise AdaFlowError(f"the model {text!r} has an unknown flag {flag}; use {', '.join(_FLAGS)}")
            found[flag].append(value if equals else next(words, ""))
        return cls(model, tuple(found["--lora"]), (found["--vae"] or [""])[-1], tuple(found["--embedding"]))


def split_value(name: str) -> tuple[str, str]:
    """Split "FILE=VALUE" into ("FILE", "VALUE"); without "=", or for a file with "=" in its name, ("FILE", "")."""
    if os.path.exists(os.path.expanduser(name)):
        return name, ""
    file, equals, value = name.rpartition("=")
    return (file, value) if equals else (name, "")


def is_path(name: str) -> bool:
    """Whether a name is written as a path, unlike any id of the Hub."""
    return name.startswith(("./", "../")) or Path(name).is_absolute()
