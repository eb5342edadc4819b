"""The exceptions that a user's input can cause."""

USER_ERROR = 2  # exit status of a program that ends with one of them


class UserError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong, and what to do."""


class UserCodeError(UserError):
    """Code that the user brought, such as an objective or a config file, raised an error.

    Attributes:
      frames: the lines of the traceback that lie in that code; "" if there are none.
    """

    def __init__(self, message: str, frames: str = "") -> None:
        """The message is one line, as of any UserError."""
        super().__init__(message)
        self.frames = frames
