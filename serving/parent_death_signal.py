"""Run a command that ends with its parent process (Linux): `python parent_death_signal.py PARENT_PID COMMAND ...`.

The kernel sends SIGTERM when the parent thread ends for any reason, SIGKILL included, which a `finally` block cannot
handle. This file runs as a script because `prctl` must be called between fork and exec, where Python code is not safe
in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before prctl was called
        sys.exit(1)
    os.execv(command[0], command)
