"""Processes, signals, files and the contents of a run directory. This package has no arrays."""
