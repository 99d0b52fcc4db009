"""The ways in which a command ends early, and what the shell sees of them."""


class UserError(Exception):
    """Something that the user typed, or a file that the user named, cannot be used.

    The message is one sentence or two for the terminal: which file, row, key or value, what was
    expected, what to do. The command ends with exit code 2 and leaves nothing half-written.
    """

    exit_code = 2


class RunError(Exception):
    """A run that had begun could not go on (exit code 1); the message says what can be saved."""

    exit_code = 1


class PausedError(RunError):
    """A run that goes on from its last checkpoint once something outside of it has changed.

    A disk that is full, memory that another program took; how to go on is said beside the message.
    """
