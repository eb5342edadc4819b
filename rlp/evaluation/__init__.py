"""Held-out evaluation of thoughts and answers, and generation of text.

evaluator           metrics of documents with and without thoughts and of pairs, example thoughts
answer_evaluator    metrics of responses to held-out problems, example responses
thinking            sample thoughts at forks, and score targets with and without them
answering           sample and grade responses to problems, in training and evaluation
response_format     the tokens around a response
generation          generate text or thoughts from a trained network
likelihood          log-likelihood of a text after a prompt
"""
