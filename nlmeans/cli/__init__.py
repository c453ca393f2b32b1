"""The command line: ``nlmeans denoise``, ``batch``, ``bids``, ``noise``, ``demo`` and ``info``.

Options are declared without importing torch, which takes more than a second. Help, completion and wrong arguments
therefore answer at once. Each command has its module, which imports what computes once arguments and inputs have been
checked.
"""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable

import click

from nlmeans.cli.batch import batch_command
from nlmeans.cli.bids import bids_command
from nlmeans.cli.demo import demo_command
from nlmeans.cli.denoise import denoise_command
from nlmeans.cli.errors import ignore_late_interrupts, keep_interrupts
from nlmeans.cli.info import info_command
from nlmeans.cli.noise import noise_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nlmeans")
def main() -> None:
    """Denoise medical volumes by non-local means."""
    click.get_current_context().call_on_close(collect_less())
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if sys.stderr.isatty():
        logging.getLogger("nlmeans.kernels").setLevel(logging.INFO)  # why the first run takes longer
    if threading.current_thread() is threading.main_thread():
        # Clusters end a job by SIGTERM. Treat it like Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        click.get_current_context().call_on_close(lambda: signal.signal(signal.SIGTERM, before))
        click.get_current_context().call_on_close(ignore_late_interrupts)
        click.get_current_context().call_on_close(keep_interrupts())


for command in (denoise_command, batch_command, bids_command, noise_command, demo_command, info_command):
    main.add_command(command)


def collect_less() -> Callable[[], None]:
    """Make the garbage collector look less often, and not at all when Python ends.

    torch, numba and matplotlib make half a million objects that stay until then. To look through them again and again
    takes a second. Returns what makes it look as often as before.
    """
    usual = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    atexit.unregister(leave_objects)
    atexit.register(leave_objects)
    return lambda: gc.set_threshold(*usual)


def leave_objects() -> None:
    """Hide all objects from the garbage collector, unless triton is there, which prints what is left of its own."""
    if "triton" not in sys.modules:
        gc.freeze()


SELDOM = 50_000, 4, 2
"""Objects made before the garbage collector looks at these, and how often it does before it looks at older ones. In a
long run it has to look at all of them now and then, as figures and images that are done with are among them."""


def bids_main() -> None:
    """Run ``nlmeans bids`` with the arguments of this process, as the script ``nlmeans-bids``."""
    main(["bids", *sys.argv[1:]], prog_name="nlmeans")
