"""What may go wrong, how often, and the dice for it: everything comes from one seed."""

from __future__ import annotations

import random
from collections.abc import Mapping


class Violation(AssertionError):
    """The simulator found a bug."""


class Killed(BaseException):
    """The daemon died here, as by `kill -9` or a loss of power. No `except Exception` may hold it."""


class Chance:
    """Dice. `rates` gives how often each named fault comes; a name without rate never does."""

    def __init__(self, dice: random.Random, rates: Mapping[str, float]) -> None:
        self.dice = dice
        self.rates = rates

    def __call__(self, fault: str) -> bool:
        rate = self.rates.get(fault, 0.0)
        return rate > 0 and self.dice.random() < rate

    def below(self, number: int) -> int:
        return self.dice.randrange(number)

    def stop(self) -> None:
        """From now on nothing goes wrong."""
        self.rates = {}
