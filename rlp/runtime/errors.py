"""The exceptions that a user's input can cause."""

import copy
from typing import Any, Self

USER_ERROR = 2  # exit status of a program that ends with one of them


class UserError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong, and what to do.

    Attributes:
      field: dotted path of the config field at fault, such as "rlp.group_size"; "" if the error is
        not about a field.
      value: of that field.
    """

    def __init__(self, message: str, *, field: str = "", value: Any = None) -> None:
        """The message is taken as it is; `of` builds it from the field and its value."""
        super().__init__(message)
        self.field = field
        self.value = value

    @classmethod
    def of(cls, field: str, value: Any, problem: str) -> Self:
        """An error that begins with "field=value".

        Args:
          field: dotted path of the config field at fault.
          value: of that field.
          problem: the rest of the sentence, such as "is unknown; use one of a, b" or "; it must be
            at least 1".
        """
        space = "" if problem[0] in ",;:" else " "
        return cls(f"{field}={value!r}{space}{problem}", field=field, value=value)

    def within(self, place: str) -> Self:
        """The same error with "place: " before its message, for a config that is one of several."""
        error = copy.copy(self)
        error.args = (f"{place}: {self}",)
        return error


class UserCodeError(UserError):
    """Code that the user brought, such as an objective or a config file, raised an error.

    Attributes:
      frames: the lines of the traceback that lie in that code; "" if there are none.
    """

    def __init__(
        self, message: str, frames: str = "", *, field: str = "", value: Any = None
    ) -> None:
        """The message is one line, as of any UserError."""
        super().__init__(message, field=field, value=value)
        self.frames = frames
