"""From a config to a finished folder: checks, assembly, the loop, experiments, import, export.

checks, tasks, datasets         what no run can use; what kind of run it is; where rows are from
method, answering, held_out     what a run computes, answers problems and is measured with
assembly, memory_check          all of that together; what does not fit is refused
loop, state, finish, resume     the run: its steps, its state, its end, what it resumes
experiment                      several runs that build on one another
"""
