"""Lists of names in messages."""

from collections.abc import Sequence


def some(names: Sequence[str], number: int = 5) -> str:
    """The first ``number`` names, and how many more there are."""
    more = f' and {len(names) - number} more' if len(names) > number else ''
    return ', '.join(map(str, names[:number])) + more
