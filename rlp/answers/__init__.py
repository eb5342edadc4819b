"""Responses to problems: their answers are read, compared and graded on the host. No arrays."""
