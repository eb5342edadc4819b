"""Plan a run: memory, collectives and roofline time of a training step, without the accelerators.

step_memory      lower bounds of memory from shapes
device_memory    memory of this machine, and the check of a run against it
chips            chips and topologies, with the vendors' specifications
compilers        the devices of a topology for ahead-of-time (AOT) compilation
programs         compiles a stage and records its memory
compiled_stages  compiles all stages of a step in order
hlo              collectives of a compiled program
roofline         FLOPs, bytes and minimum time of each phase
summary          all of it as text, and whether the step fits
"""
