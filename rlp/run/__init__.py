"""From a config to a finished run folder: checks, assembly, the training loop, experiments.

checks, tasks, datasets         validation of configs; kinds of runs; sources of training rows
method, answering, held_out     the model and its settings; answering problems; evaluation
assembly, memory_check          build all parts of a run; refuse a run that does not fit
loop, state, finish, resume     the training loop: its steps, state, end, and resuming
evaluations, training_suite     what a run measures besides training: held-out rows, benchmarks
experiment                      several runs that build on one another
import_model, export_model      models from and to the Hugging Face format
opened_model, text_generation   a trained model on a mesh, and responses that it generates
from_python, model, results     the Python API (`rlp.train`, `rlp.load`, `rlp.Run`)
"""
