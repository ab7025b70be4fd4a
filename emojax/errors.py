"""The one exception for what a user handed in: a file, a table, a setting."""


class InputError(ValueError):
    """Input that cannot be used. `launch.py` prints its one line and exits with code 2."""

    def __init__(self, where: object, found: object, expected: object):
        """Args: the file or setting at fault, what it holds, what it should hold."""
        super().__init__(f"{where}: found {found}; expected {expected}".replace("\n", " "))
