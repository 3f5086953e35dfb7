"""What customers say: texts put together of the sentences of a theme."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from random import Random

import msgspec
from msgspec import Struct


class Theme(Struct, frozen=True, forbid_unknown_fields=True):
    """One of each makes a text; so many texts differ that voices are told apart by what they say."""

    said: tuple[str, ...]
    starts: tuple[str, ...] = ("",)
    ends: tuple[str, ...] = ("",)

    def text(self, random: Random) -> str:
        """A text, with its blanks: ``{lot}``, ``{phone}`` …"""
        return random.choice(self.starts) + random.choice(self.said) + random.choice(self.ends)


@cache
def themes() -> Mapping[str, Theme]:
    """All themes by name."""
    file = resources.files("pipeline.scenarios") / "sentences.yaml"
    return msgspec.yaml.decode(file.read_bytes(), type=dict[str, Theme])
