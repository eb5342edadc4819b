"""The kinds of layers: one file for each, behind one protocol, and the letters that name them."""
