"""Programs in processes of their own that need not import libraries: forks of one that has imported them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

PATIENCE = 120
"""Seconds after which a command will not end."""

READY = """
from nlmeans import cli
from nlmeans.files import batch, denoise
from nlmeans.operator import cpu_kernel
"""
"""Imports what a command needs sooner or later."""

PROGRAM = f"""
import gc, json, os, signal, sys
import click, matplotlib.backends.backend_agg, nibabel, numba, psutil, scipy.fft, scipy.ndimage, torch, tqdm

gc.freeze()  # otherwise a fork goes through all of it when it ends

for line in sys.stdin:
    order = json.loads(line)
    if isinstance(order, int):
        signal.alarm({PATIENCE})
        print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
        signal.alarm(0)
    elif not os.fork():
        break
else:
    sys.exit()

before, code, words, *files = order
os.setsid()
exec(before)
print(os.getpid(), flush=True)
for stream, file in enumerate((os.devnull, *files)):
    os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), stream)
sys.argv[1:] = words
exec(code)
"""


class Forks:
    """Start programs as ``python -c`` does, each in a session of its own, and wait for them.

    What `nlmeans` needs is imported already, but not `nlmeans` itself, nor what is optional.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *words: object, before: str = "") -> Fork:
        """Start a command of `nlmeans`, once the code `before` has run in its process."""
        return self.python("cli.main()", *words, before=READY + before)

    def python(self, code: str, *words: object, before: str = "") -> Fork:
        """Start a program with these arguments, once the code `before` has run in its process."""
        number = next(self.numbers)
        out, err = (self.folder / f"{number}.{kind}" for kind in ("out", "err"))
        return Fork(self, int(self.ask([before, code, list(map(str, words)), str(out), str(err)])), out, err)

    def ask(self, order: object) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.process.stdout.readline()

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


class Fork:
    """A command that was started."""

    def __init__(self, forks: Forks, pid: int, out: Path, err: Path) -> None:
        self.forks, self.pid, self.out, self.err = forks, pid, out, err

    def ended(self) -> tuple[int, str, str]:
        """Wait for it. Returns its exit code, standard output and standard error."""
        code = int(self.forks.ask(self.pid))
        return code, self.out.read_text(), self.err.read_text()
