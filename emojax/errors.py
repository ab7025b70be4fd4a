"""The one exception for what a user handed in: a file, a table, a setting."""


class InputError(ValueError):
    """Input that cannot be used. The command prints its one line and exits with code 2."""

    def __init__(self, where: object, found: object, expected: object):
        """Args: the file or setting at fault, its content, and what it should hold."""
        super().__init__(f"{where}: found {found}; expected {expected}".replace("\n", " "))

    def __reduce__(self):
        """Lets the error come back from a worker process with its line."""
        return _from_line, self.args


def _from_line(line: str) -> InputError:
    return InputError.__new__(InputError, line)
