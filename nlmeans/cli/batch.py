"""The command ``nlmeans batch``."""

from __future__ import annotations

import sys
from typing import Any

import click

from nlmeans.cli.errors import one_line_errors, say
from nlmeans.cli.option_types import PATH
from nlmeans.cli.options import as_arguments, cohort_options
from nlmeans.core.memory import available
from nlmeans.core.progress import reporting
from nlmeans.files.paths import existing


@click.command("batch")
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option(
    "--out",
    type=PATH,
    help="Folder for the results; by default derivatives/nlmeans inside a BIDS dataset. Required for anything else.",
)
@click.option(
    "--participant",
    "participants",
    multiple=True,
    help="Participant to denoise in a BIDS dataset, such as 01. May be repeated. By default all.",
)
@click.option(
    "--session",
    "sessions",
    multiple=True,
    help="Session to denoise in a BIDS dataset, such as 01. May be repeated. By default all.",
)
@cohort_options
def batch_command(sources: tuple[str, ...], **options: Any) -> None:
    """Denoise many scans.

    IN is a file, a folder, a quoted pattern such as 'scans/**/*.nii.gz', or one BIDS dataset.

    A failed scan does not stop the others. The command names it at the end and returns exit code 1. A second run skips
    finished scans, unless the scan or the settings changed. The file report.html shows every scan before, after, and
    what was removed.

    \b
    Example:
      nlmeans batch my_bids_dataset --workers 4
    """
    with one_line_errors():
        for given in sources:
            next(existing(given))  # raises an error if there is none
    run_cohort(sources, **options)


def run_cohort(
    sources: tuple[str, ...], *, workers: int, threads: int | None, dry_run: bool, quiet: bool, **options: Any
) -> None:
    """Denoise many scans, write the report, and exit with code 1 if a scan failed."""
    with one_line_errors("Interrupted: finished scans are kept; give the same command again to resume."):
        import torch

        from nlmeans.engine.settings import device_or_gpu
        from nlmeans.files import batch, report

        if options["memory"] is None and workers > 1:
            device = torch.device(device_or_gpu(options["device"]))
            options["memory"] = str(available(device) // workers)
        jobs, out, description = batch.cohort(sources, **as_arguments(options))
        if dry_run:
            for job in jobs:
                modality = job.options["modality"] or "any modality"
                say(f"{job.name} -> {job.target}: noise {job.options['noise']}, {modality}")
            return
        if not quiet:
            say(f"{len(jobs)} scans; the results go to {out}")
        threads = threads or max(1, torch.get_num_threads() // workers)
        with reporting(not quiet and sys.stderr.isatty(), "scans") as progress:
            outcomes = batch.run_jobs(jobs, workers, threads, progress)
        written = report.write_report(out, outcomes, description)
    if not quiet:
        say(f"{report.summary(outcomes)}; see {written}")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        click.echo(f"Failed: {outcome.job.name}: {outcome.reason}", err=True)
    if failed:
        raise SystemExit(1)
