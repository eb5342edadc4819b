"""Score the options of questions and whole texts by their log-likelihood.

questions         questions with options, and how likely options are
option_scores     score options with and without thoughts, and long texts
shared_contexts   questions whose contexts begin with the same tokens
token_ranks       score tokens, and find the likeliest ones in their places
option_programs   the compiled functions that do so
row_batches       rows of different lengths in batches of few shapes
text_windows      long texts in windows
"""
