"""Runs of ``nlmeans denoise`` in a process of its own, on files of a temporary folder.

Nothing here imports Slicer or nlmeans. It runs in Python 3.9, which older versions of Slicer have.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

METHODS = (
    *("auto", "bayes", "best", "classic", "patchwise", "linear"),
    *("stochastic", "dct", "wiener", "pri", "subspace", "series"),
)
"""Names of the methods, as ``--method`` takes them."""

NOISES = ("auto", "gaussian", "rician", "chi", "poisson", "curve")
"""Kinds of noise, as ``--noise`` takes them."""

PATIENCE = 10.0
"""Seconds that a cancelled run may take to clean up before it is killed."""

BAR = re.compile(r"(\d+)%\|")
"""The fraction done in a progress bar."""


class RunError(RuntimeError):
    """A run that failed. The message is the one of the command."""


@dataclass(frozen=True)
class Choices:
    """How to denoise.

    Args:
        method: one of `METHODS`.
        noise: one of `NOISES`.
        strength: how strong the noise is taken to be; greater than 0.
        sigma: standard deviation of the noise, in image units; None finds it.
    """

    method: str = "auto"
    noise: str = "auto"
    strength: float = 1.0
    sigma: float | None = None


def command(program: Sequence[str], source: Path, target: Path, choices: Choices) -> list[str]:
    """Return the command line of a run.

    >>> words = command(["nlmeans"], Path("in.nrrd"), Path("out.nrrd"), Choices("best", sigma=12.0))
    >>> " ".join(words)
    'nlmeans denoise in.nrrd out.nrrd --progress --method best --noise auto --strength 1.0 --sigma 12.0'
    """
    sigma = [] if choices.sigma is None else ["--sigma", str(choices.sigma)]
    return [
        *program,
        *("denoise", str(source), str(target), "--progress", "--method", choices.method),
        *("--noise", choices.noise, "--strength", str(choices.strength), *sigma),
    ]


def fraction_done(line: str) -> float | None:
    """Return the fraction done that a progress bar shows, or None for another line.

    >>> fraction_done("denoising  42%|████  | 00:03<00:04"), fraction_done("sigma 42%")
    (0.42, None)
    """
    found = BAR.search(line)
    return int(found[1]) / 100 if found else None


class Run:
    """One run. Write the volume to `source`, start, ask `running` and `progress` now and then, and read `result`.

    Args:
        program: the words that begin the command line, such as ``["/home/me/.venv/bin/nlmeans"]``.
        choices: how to denoise.
        environment: variables of the process; None for those of this process. Slicer's own mislead another Python, so
            give those with which Slicer was started.

    As a context manager it ends the process, if it still runs, and removes its files.
    """

    def __init__(self, program: Sequence[str], choices: Choices, environment: Mapping[str, str] | None = None) -> None:
        self.program, self.choices, self.environment = list(program), choices, environment
        self.folder = Path(tempfile.mkdtemp(prefix="nlmeans-"))
        self.source, self.target = self.folder / "volume.nrrd", self.folder / "denoised.nrrd"
        self.process: subprocess.Popen[str] | None = None
        self.readers: list[threading.Thread] = []
        self.progress = 0.0
        self.cancelled = False
        self.summary: list[str] = []
        self.messages: list[str] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process.

        Raises:
            RunError: there is no such program.
        """
        try:
            self.process = subprocess.Popen(
                command(self.program, self.source, self.target, self.choices),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if self.environment is None else {**self.environment, "PYTHONIOENCODING": "utf-8"},
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise RunError(
                f"{self.program[0]!r} cannot be started ({error.strerror}); install nlmeans with its extra 'formats', "
                "and name the program nlmeans of that installation"
            ) from error
        streams = ((self.process.stdout, self.summary), (self.process.stderr, self.messages))
        self.readers = [threading.Thread(target=self.read, args=each, daemon=True) for each in streams]
        for reader in self.readers:
            reader.start()

    def read(self, stream: IO[str], lines: list[str]) -> None:
        """Keep the lines of a stream, and the fraction done of its progress bars, which end with a carriage return."""
        with contextlib.closing(stream):
            for line in stream:
                fraction = fraction_done(line)
                if fraction is not None:
                    self.progress = fraction
                elif line.strip():
                    lines.append(line.strip())

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def cancel(self) -> None:
        """Ask the process to end. It leaves nothing half-written; `result` then raises an error."""
        if self.process is not None and self.running:
            self.cancelled = True
            self.process.terminate()

    def result(self) -> Path:
        """Wait for the end, and return the file with the result, which lives until `close`.

        Raises:
            RunError: the run was not started, was cancelled, or failed.
        """
        if self.process is None:
            raise RunError("the run was not started; call start() first")
        code = self.process.wait()
        for reader in self.readers:
            reader.join()
        if self.cancelled:
            raise RunError("cancelled; nothing was changed")
        if code != 0 or not self.target.is_file():
            errors = [line for line in self.messages if line.startswith("Error: ")]
            last = (errors or self.messages or [f"the command ended with code {code}"])[-1]
            raise RunError(last[len("Error: ") :] if last.startswith("Error: ") else last)
        self.progress = 1.0
        return self.target

    def close(self) -> None:
        """End the process if it still runs, and remove the temporary folder."""
        if self.process is not None and self.running:
            self.cancel()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for reader in self.readers:
            reader.join(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)
