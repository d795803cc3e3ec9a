from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.utils.file_lock import file_lock


def test_file_lock_makes_a_second_holder_wait_or_refuses_it(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with file_lock(tmp_path / "lock"):
            entered.set()

    waiting = threading.Thread(target=second)
    with file_lock(tmp_path / "lock"):
        waiting.start()
        assert not entered.wait(0.2)
        with pytest.raises(InputError, match="at work"), file_lock(tmp_path / "lock", refusal=InputError("at work")):
            pass
    waiting.join()
    assert entered.is_set()


def test_file_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom multitron_core.utils.file_lock import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "lock"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InputError), file_lock(tmp_path / "lock", refusal=InputError("at work")):
            pass
        holder.send_signal(signal.SIGKILL)
    with file_lock(tmp_path / "lock", refusal=InputError("at work")):
        pass


def test_file_lock_ends_with_a_killed_parent_of_a_living_child(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom multitron_core.utils.file_lock import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    child = os.fork()\n    if child:\n        print(child, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(InputError), file_lock(tmp_path / "lock", refusal=InputError("at work")):
                pass
            holder.kill()
            holder.wait()
            with file_lock(tmp_path / "lock", refusal=InputError("at work")):
                os.kill(child, 0)  # it lives
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


def test_file_lock_refuses_a_thread_that_has_it(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock"), pytest.raises(RuntimeError, match="already held"), file_lock(tmp_path / "lock"):
        pass
