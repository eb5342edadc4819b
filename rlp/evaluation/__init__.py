"""Held-out evaluation of thoughts and answers, and generation of text.

evaluator           metrics of documents with and without thoughts and of pairs, example thoughts
answer_evaluator    metrics of responses to held-out problems, example responses
thinking            sample thoughts at forks, and score targets with and without them
answering           sample and grade responses to problems, in training and evaluation
response_format     the tokens around a response
likelihood          log-likelihood of a text after a prompt
generation/         text: many requests in batches, or one text token by token
options/            log-likelihoods of the options of questions, and of long texts
benchmarks/         tasks: problems, prompts, strict extractors, metrics, suites
runner/             tasks posed to models: responses kept in files, scores
harness/            a model for lm-evaluation-harness
measures/           where thoughts help, and whether they are reasoning
"""
