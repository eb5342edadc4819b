"""Generate text: many requests in batches on a mesh, or one text token by token.

generator       responses to many requests, in batches on a mesh
batch           texts that are decoded together, which others may join
reading         prompts, of which what all begin with is read once
requests        requests, sampling settings and responses
single          one text token by token, or thoughts after a prompt
text_programs   the compiled functions of both
"""
