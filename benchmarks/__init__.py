"""Benchmarks of RLP steps, next-token training, generation and attention, alone and compared."""
