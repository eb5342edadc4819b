"""The command-line programs. Only the programs themselves import this package."""

import signal
import sys

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports of `python -m launch.…` ends the program without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
