"""Attention kernels of our own, for TPUs and GPUs. They know jax alone: no model, no document."""
