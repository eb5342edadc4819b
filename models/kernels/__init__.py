"""Attention kernels for TPUs and GPUs. They depend on JAX alone: no models, no documents."""
