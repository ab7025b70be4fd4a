"""The exception for unusable input (a file, a table, a setting) and its one-line message."""

import sys

LONGEST = 600  # maximum characters of one part of a message


class InputError(ValueError):
    """Input that cannot be used. The command prints its one line and exits with code 2."""

    def __init__(self, where: object, found: object, expected: object):
        """Args: the file or setting at fault, what it contains, and what it should contain."""
        parts = (_shorten(one_line(part)) for part in (where, found, expected))
        super().__init__("{}: found {}; expected {}".format(*parts))

    def __reduce__(self):
        """Lets the error cross from a worker process with its message."""
        return _from_line, self.args


def one_line(text: object) -> str:
    """Returns a text as one line, with control characters escaped for terminals."""
    lines = str(text).replace("\n", " ")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in lines)


def say(text: object) -> None:
    """Prints a text as one line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def _shorten(text: str) -> str:
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def _from_line(line: str) -> InputError:
    return InputError.__new__(InputError, line)
