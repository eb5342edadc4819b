"""Processes, signals, files, and what lies in the folder of a run. No model arrays."""
