"""A server with OpenAI's interface over the generator and the scorer of one network.

fields       typed parameters of a request's JSON
prompts      prompts and messages in it
protocol     requests of all routes, as records
responses    the JSON of responses
token_names  the text of single tokens
engine       the thread that owns the network: texts join a running batch as they arrive
updates      what the engine reports to the event loop
service      from a request of a route to texts and log-probabilities, and back
app          routes, limits, errors; needs starlette
server       runs the app on a socket; needs uvicorn

Only `app` and `server` need other packages than a run does (`requirements-serve.txt`).
"""
