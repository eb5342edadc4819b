"""Benchmarks of this project's RLP step and attention, alone and against other implementations."""
