"""Know before you go: what a step of a config needs on machines that are not here.

chips      what a chip and a topology are, from the vendors' figures
compilers  the devices of a topology, to compile for
stages     the real stages of a step, compiled one after the other; who is alive meanwhile
hlo        the collectives of a compiled program
roofline   FLOPs and bytes of our own count, and the time that a stage takes at the least
report     all of it as text, and whether it fits
"""
