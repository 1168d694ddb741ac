"""What is wrong with a dataset: kinds of faults, counted, with examples."""

from dataclasses import dataclass, field
from typing import NamedTuple

EXAMPLES = 5  # of each kind that are kept


class Kind(NamedTuple):
    """A kind of fault.

    Args:
        name: Its name in the JSON, as ``box-negative``.
        what: What it is, for the table: 'box of negative width or height'.
        effect: What training does with it: 'mmdet drops the object'.
        stops: Whether training would fail or learn something wrong, so that a run ends unless it is told to skip.
    """

    name: str
    what: str
    effect: str
    stops: bool


@dataclass
class Findings:
    """The faults of a dataset by kind."""

    numbers: dict[Kind, int] = field(default_factory=dict)
    examples: dict[Kind, list[str]] = field(default_factory=dict)

    def add(self, kind: Kind, where: str, number: int = 1) -> None:
        """Counts a fault; ``where`` names the annotation or file."""
        self.numbers[kind] = self.numbers.get(kind, 0) + number
        if len(examples := self.examples.setdefault(kind, [])) < EXAMPLES:
            examples.append(where)

    def update(self, other: 'Findings') -> None:
        """Adds the faults that another process found."""
        for kind, number in other.numbers.items():
            self.numbers[kind] = self.numbers.get(kind, 0) + number
            self.examples[kind] = (self.examples.get(kind, []) + other.examples[kind])[:EXAMPLES]

    @property
    def serious(self) -> list[Kind]:
        """The kinds that end a run."""
        return [kind for kind in self.numbers if kind.stops]

    def to_list(self) -> list[dict]:
        """A dict for each kind, for JSON: name, what, number, examples, effect, stops."""
        return [
            dict(kind._asdict(), number=number, examples=self.examples[kind]) for kind, number in self.numbers.items()
        ]
