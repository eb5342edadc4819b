"""Config files, one per recipe. They import neither jax nor `rlp`."""
