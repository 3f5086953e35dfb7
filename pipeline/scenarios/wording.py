"""What customers say: texts put together of the sentences of a theme."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from random import Random
from string import Formatter

import msgspec
from msgspec import Struct

BLANKS = ("lot", "product", "carrier", "phone")
"""What a sentence may leave to be filled in, in braces."""


class Theme(Struct, frozen=True, forbid_unknown_fields=True):
    """One of each makes a text; so many texts differ that voices are told apart by what they say."""

    said: tuple[str, ...]
    starts: tuple[str, ...] = ("",)
    ends: tuple[str, ...] = ("",)

    def text(self, random: Random) -> str:
        """A text, with its blanks."""
        return random.choice(self.starts) + random.choice(self.said) + random.choice(self.ends)

    def unknown_blanks(self) -> list[str]:
        """Blanks that nobody would fill in."""
        parsed = Formatter().parse("".join((*self.starts, *self.said, *self.ends)))
        return sorted({name for _, name, _, _ in parsed if name is not None}.difference(BLANKS))


@cache
def themes() -> Mapping[str, Theme]:
    """All themes by name."""
    file = resources.files("pipeline.scenarios") / "sentences.yaml"
    return msgspec.yaml.decode(file.read_bytes(), type=dict[str, Theme])
