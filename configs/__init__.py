"""Configs: what a run is made of, one file a recipe. They import neither jax nor `rlp`."""
