"""The kinds of layers: one file for each, with one protocol, and the letters that name them."""
