"""The parameters of a request's JSON: typed, bounded, and all of them known."""

import math
from collections.abc import Mapping
from typing import Any

from rlp.runtime import strict_json


class ApiError(Exception):
    """A request that is refused.

    Attributes:
      message: one line that says what is wrong.
      status: of the HTTP response.
      param: name of the parameter at fault, or None.
      code: OpenAI's name of the error, or None.
    """

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        """Store the attributes."""
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code


def read_object(body: bytes) -> dict[str, Any]:
    """Parse the JSON object of a request.

    Raises:
      ApiError: If it is not a JSON object in UTF-8, is nested too deeply, or has a huge integer.
    """
    try:
        content = strict_json.parse(body.decode())
    except ValueError as error:  # not UTF-8, or not JSON
        raise ApiError(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ApiError("the body is not a JSON object")
    return content


class Fields:
    """Takes parameters one by one; null counts as absent."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Create it from a JSON object, which is not changed."""
        self._left = dict(body)

    def any(self, name: str) -> Any:
        """Take a value of any type; None if it is absent."""
        return self._left.pop(name, None)

    def has(self, name: str) -> bool:
        """Return whether a parameter is there and was not taken yet; it may be null."""
        return name in self._left

    def flag(self, name: str, default: bool = False) -> bool:
        """Take true or false.

        Raises:
          ApiError: If it is something else.
        """
        value = self.any(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(name, value, "it must be true or false")
        return default if value is None else value

    def whole(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """Take an integer from `least` to `most`.

        Raises:
          ApiError: If it is something else.
        """
        value = self.any(name)
        if value is None:
            return default
        if not is_whole(value) or not least <= value <= most:
            raise wrong(name, value, f"it must be an integer from {least} to {most}")
        return value

    def number(self, name: str, default: float) -> float:
        """Take a finite number.

        Raises:
          ApiError: If it is something else.
        """
        value = self.any(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not _is_finite(value):
            raise wrong(name, value, "it must be a number")
        return float(value)

    def text(self, name: str) -> str | None:
        """Take a text.

        Raises:
          ApiError: If it is something else.
        """
        value = self.any(name)
        return None if value is None else checked_text(name, value)

    def neutral(self, values: Mapping[str, tuple[Any, ...]]) -> None:
        """Take parameters that are accepted only at values that change nothing.

        Args:
          values: name → these values; null is always one.

        Raises:
          ApiError: If one has another value.
        """
        for name, accepted in values.items():
            value = self.any(name)
            if value is not None and not any(_same(value, other) for other in accepted):
                raise wrong(name, value, "this server does not support it; leave it out")

    def finish(self) -> None:
        """Refuse what was not taken.

        Raises:
          ApiError: If anything is left.
        """
        for name in self._left:
            raise ApiError(f"unknown parameter {name[:80]!a}", param=name[:80])


def wrong(name: str, value: Any, rule: str) -> ApiError:
    """Return the error of a parameter with a wrong value; `rule` says what it must be."""
    shown = ascii(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return ApiError(f"{name}={shown}; {rule}", param=name)


def is_whole(value: Any) -> bool:
    """Return whether a JSON value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def checked_text(name: str, value: Any) -> str:
    """Return a text.

    Raises:
      ApiError: If it is not one, or is not valid Unicode: JSON can write half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise wrong(name, value, "it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ApiError(f"{name} is not valid Unicode", param=name) from error
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _same(value: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other
