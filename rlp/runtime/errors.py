"""Exceptions caused by the user's input."""

import copy
from typing import Any, Self

USER_ERROR = 2  # exit status of a program that ends with a UserError


class UserError(ValueError):
    """Input that cannot be used. The message is one line that says what is wrong and what to do.

    Attributes:
      field: Dotted path of the config field at fault, such as "rlp.group_size"; "" if the error is
        not about a config field.
      value: Value of that field.
    """

    def __init__(self, message: str, *, field: str = "", value: Any = None) -> None:
        """Use `message` as it is; `of` builds the message from the field and its value."""
        super().__init__(message)
        self.field = field
        self.value = value

    @classmethod
    def of(cls, field: str, value: Any, problem: str) -> Self:
        """Return an error whose message begins with "field=value".

        Args:
          field: Dotted path of the config field at fault.
          value: Value of that field.
          problem: The rest of the sentence, such as "is unknown; use one of a, b" or "; it must be
            at least 1".
        """
        space = "" if problem[0] in ",;:" else " "
        return cls(f"{field}={value!r}{space}{problem}", field=field, value=value)

    def within(self, context: str) -> Self:
        """Return the same error with "context: " before its message, such as the name of an arm."""
        error = copy.copy(self)
        error.args = (f"{context}: {self}",)
        return error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of JAX's runtime or compiler says that a device is out of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


class UserCodeError(UserError):
    """The user's code, such as an objective or a config file, raised an error.

    Attributes:
      frames: Lines of the traceback that are in the user's code; "" if there are none.
    """

    def __init__(
        self, message: str, frames: str = "", *, field: str = "", value: Any = None
    ) -> None:
        """The message is one line, as for any UserError."""
        super().__init__(message, field=field, value=value)
        self.frames = frames
