"""What a round passes to the committer, and in which batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from thrum.model import limits
from thrum.sync.ports import Arrived, Surplus

_FACT_BYTES: Final = limits.batch_bytes_max // limits.batch_facts_max
"""What a line takes of a batch beside its bytes."""


class Intake(NamedTuple):
    """The lines of one journal of the branch that are not here."""

    file: str
    blob: str
    lines: list[Arrived]
    surplus: list[Surplus]

    @property
    def weight(self) -> int:
        """What they take of a batch, in bytes."""
        return sum(len(line.raw) for line in self.lines) + _FACT_BYTES * len(self.lines)


def batches_of(arrived: Iterable[Arrived]) -> Iterator[list[Arrived]]:
    """The lines in batches that fit one batch of the committer."""
    portion: list[Arrived] = []
    size = 0
    for line in arrived:
        if portion and (len(portion) >= limits.batch_facts_max or size + len(line.raw) > limits.batch_bytes_max):
            yield portion
            portion, size = [], 0
        portion.append(line)
        size += len(line.raw)
    if portion:
        yield portion
