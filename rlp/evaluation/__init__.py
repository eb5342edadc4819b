"""Held-out measures of thoughts and answers, and generation of text."""
