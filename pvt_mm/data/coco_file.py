"""Reads a JSON file in COCO's form one entry at a time, in memory that does not grow with the file."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_CHUNK = 2**20  # bytes
_SPACE = re.compile(r'[ \t\n\r]*')
_DECODER = json.JSONDecoder()
# As near as this to the end of the piece, a value may be cut off: '-Infinity' has 9 characters, and '1.' is read as 1.
_CUT = 12


def read_lists(file: BinaryIO) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yields the name of each list at the top of the file, and an iterator over its entries.

    What a list holds is read as it is asked for, and skipped where it is not. Other values at the top are left out.

    Raises:
        ValueError: The file is no JSON, or no object of lists. It is raised where the fault is met.
    """
    text = _Text(file)
    text.take('{')
    separator = ','
    while separator == ',':
        key = text.read_value()
        if not isinstance(key, str):
            raise ValueError(f'a name is expected at character {text.place}')
        text.take(':')
        if text.peek() == '[':
            entries = text.read_entries()
            yield key, entries
            for _ in entries:
                pass
        elif key in ('images', 'annotations', 'categories'):
            raise ValueError(f"'{key}' is no list")
        else:
            text.read_value()
        separator = text.take(',}')
    if text.peek():
        raise ValueError(f'there is more text after the end at character {text.place}')


class _Text:
    """The text of a file, of which a piece is held."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.decode = codecs.getincrementaldecoder('utf-8')().decode
        self.text, self.pos, self.before, self.ended = '', 0, 0, False

    @property
    def place(self) -> int:
        """The number of characters before the current one."""
        return self.before + self.pos

    def read_more(self) -> None:
        """Lets go of what was read and doubles the rest."""
        self.before += self.pos
        self.text, self.pos = self.text[self.pos :], 0
        data = self.file.read(max(_CHUNK, len(self.text)))
        self.ended = not data
        self.text += self.decode(data, self.ended)

    def peek(self) -> str:
        """The next character that is no space; '' at the end."""
        self.pos = _SPACE.match(self.text, self.pos).end()
        while self.pos == len(self.text) and not self.ended:
            self.read_more()
            self.pos = _SPACE.match(self.text, self.pos).end()
        return self.text[self.pos : self.pos + 1]

    def take(self, wanted: str) -> str:
        """Takes the next character, which is to be one of ``wanted``."""
        char = self.peek()
        if not char or char not in wanted:
            names = ' or '.join(wanted)
            raise ValueError(f'{names} is expected at character {self.place}, there is {char or "the end of the file"}')
        self.pos += 1
        return char

    def read_value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.pos)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith('Unterminated') or error.pos > len(self.text) - _CUT
                if self.ended or not cut:
                    raise ValueError(f'{error.msg} at character {self.before + error.pos}') from None
            except RecursionError:
                raise ValueError(f'lists in lists without end at character {self.place}') from None
            else:
                if self.ended or end <= len(self.text) - _CUT:
                    self.pos = end
                    return value
            self.read_more()

    def read_entries(self) -> Iterator[Any]:
        self.take('[')
        if self.peek() == ']':
            self.pos += 1
            return
        separator = ','
        while separator == ',':
            yield self.read_value()
            separator = self.take(',]')
