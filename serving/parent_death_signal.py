"""Run a command that ends with its parent process (Linux): `python parent_death_signal.py PARENT_PID COMMAND ...`.

The kernel sends SIGTERM when the parent thread ends, whatever ended it; a `finally` cannot promise that. This file is
run as a script because the request must be made between fork and exec, where a threaded Python is not safe.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the request was made
        sys.exit(1)
    os.execv(command[0], command)
