"""The one exception that a user's input can cause."""


class UserError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong, and what to do."""
