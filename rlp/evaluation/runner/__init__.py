"""Pose the tasks of a suite to models, keep their responses, and compute the scores.

settings       how tasks are posed: prompts, thinking, number of tokens and of problems
model          a model that is evaluated: network, tokenizer, prompts
answer_file    finished responses on disk, so that a killed evaluation repeats none of them
posed          the tasks of a suite with their problems
task           a task as it is posed to one model
generation     tasks whose answers are read from generated text
likelihood     tasks whose answers are options, chosen by their log-likelihood
result         the scores of a model in a task
"""
