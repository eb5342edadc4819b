"""Generate text: many requests in batches on a mesh, or one text token by token.

generator       responses to many requests, in batches on a mesh
requests        requests, sampling settings and responses
single          one text token by token, or thoughts after a prompt
text_programs   the compiled functions of both
"""
