"""How to run it: one program per verb. Nothing imports this package but its own programs."""

import signal
import sys

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C while `python -m launch.…` imports: nothing to save, and no traceback to read.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
