"""Held-out measures of thoughts and answers, and generation of text.

evaluator           documents with and without thoughts, responses of pairs, thoughts to look at
answer_evaluator    responses to held-out problems, graded
thinking            thoughts at forks, scored with and without them by the same network
answering           how responses to problems are sampled and graded, in training as well
response_format     what stands before a response and around it
generation          text from a trained network
"""
