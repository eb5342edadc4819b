"""From a config to a finished folder: checks, assembly, the loop, experiments, import, export.

checks, tasks, datasets         what no run can use; what kind of run it is; where rows are from
method, answering, assembly     what a run is made of; `memory_check` refuses what does not fit
loop, state, finish, resume     the run: its steps, its state, its end, what it resumes
experiment                      several runs that build on one another
"""
