"""Timing of the product's own RLP step, alone and beside other implementations."""
