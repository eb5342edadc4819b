"""Measures of texts and of thoughts: where thoughts help, and whether they are reasoning.

positions         choose positions of documents for thoughts
given_thoughts    score any given thoughts, and whole rows, on a mesh
counterfactuals   gains of thoughts and of what replaces them
thought_texts     shuffle thoughts, their repetition and variety
text_measures     bits per byte with and without thoughts, by class of token and by loss
token_classes     number, name, code, function word or other
estimates         ratios over documents with standard errors
"""
