"""The command line."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

import nlmeans
from nlmeans.core.memory import available, readable, shortage
from nlmeans.core.metrics import psnr, ssim
from nlmeans.core.progress import Cancelled, reporting
from nlmeans.engine.settings import device_or_gpu
from nlmeans.files import batch, bids, nifti, report, samples
from nlmeans.files.denoise import denoise_file, interruption, noise_levels
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import NOISES
from nlmeans.operator.backends import BACKENDS

EXPECTED_ERRORS = (ValueError, TypeError, OSError, MemoryError, torch.cuda.OutOfMemoryError, Cancelled)


class Sigma(click.ParamType):  # type: ignore[type-arg]
    """A number, or ``map``."""

    name = "number|map"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "map":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor the word map", param, ctx)


class Radius(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """``3`` for all axes or ``3,3,1`` for each."""

    name = "voxels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number nor one number per axis such as 3,3,1", param, ctx)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


@contextlib.contextmanager
def one_line_errors(interrupted: str = "Interrupted: nothing was left half-written.") -> Iterator[None]:
    """Errors that a user can mend are one line on standard error; nothing was written then.

    An interruption may come too late to keep the result from being written, whole.
    """
    try:
        with shortage():
            yield
    except EXPECTED_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(text) from error
    except KeyboardInterrupt as error:
        atexit.register(hush)
        click.echo(interrupted, err=True)
        raise SystemExit(130) from error


def hush() -> None:
    """Of the reads of zarr that were under way nothing is said in the end: nobody waits for them any more."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def set_verbose(context: click.Context, _: click.Parameter, verbose: bool) -> None:
    """For this command alone: several may run in a process."""
    log = logging.getLogger("nlmeans")
    if verbose:
        context.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.INFO)


def verbose_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--verbose", is_flag=True, expose_value=False, callback=set_verbose, help=text)


def say(text: str) -> None:
    """On standard output, also of files whose names are no text."""
    click.echo(click.format_filename(text))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(nlmeans.__version__)
def main() -> None:
    """Denoise medical volumes by non-local means."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as clusters end a job: like Ctrl-C
        click.get_current_context().call_on_close(lambda: signal.signal(signal.SIGTERM, before))


PATH = click.Path(path_type=Path)

mask_option = click.option("--mask", "mask_file", type=PATH, help="Image that is not zero where to look and work.")
dicom_option = click.option(
    "--dicom-series", help="Number or UID of the series to read, where a folder of DICOM files holds several."
)


SIGMA_HELP = (
    "Standard deviation of the noise, in image units; estimated if not given. map: estimated in every place, for "
    "noise that varies, as after parallel imaging."
)

# What denoise and batch have in common.
METHOD_OPTIONS = (
    click.option("--method", type=click.Choice(["auto", *METHODS]), default="auto", help="How to denoise."),
    click.option("--gain", type=float, default=1.0, help="Image units per photon, for poisson noise."),
    click.option("--offset", type=float, default=0.0, help="Image value without any photon, for poisson noise."),
    click.option(
        "--h", type=float, help="Filter strength in image units; the method's own multiple of sigma if not given."
    ),
    click.option("--patch-radius", type=Radius(), help="3 for all axes or 3,3,1 for each; the patch is 2r+1 wide."),
    click.option("--search-radius", type=Radius(), help="Likewise, of the window in which similar voxels are sought."),
    click.option("--despeckle", is_flag=True, help="Replace impulses and dead voxels first."),
    click.option("--seed", type=int, default=0, help="Of the method stochastic."),
    click.option("--voxel-radii", is_flag=True, help="Radii count voxels along all axes, whatever the voxel size."),
    click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", help="How to compute it."),
    click.option("--device", help="cpu, cuda, cuda:1, …; by default cuda where there is one."),
    click.option("--memory", help="Memory to work in, such as 2GB; half of what is free if not given."),
    click.option("--float", "as_float", is_flag=True, help="Store float32 instead of the type of IN."),
)


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(METHOD_OPTIONS):
        command = option(command)
    return command


@main.command()
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH)
@click.option("--sigma", type=Sigma(), help=SIGMA_HELP)
@click.option(
    "--sigma-map", "sigma_file", type=PATH, help="Image of the standard deviation, for noise that varies in space."
)
@click.option(
    "--noise",
    type=click.Choice(NOISES),
    default="gaussian",
    help="Kind of noise: rician for MR magnitude images, poisson for counts (sigma is then the read noise).",
)
@method_options
@mask_option
@click.option(
    "--share-weights", is_flag=True, help="Of a 4D image: all volumes together decide what is alike, as for diffusion."
)
@dicom_option
@click.option("--report", "picture", type=PATH, help="PNG of before, after and removed noise.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar, no summary.")
@verbose_option("Say what is chosen and why.")
def denoise(source: Path, target: Path, quiet: bool, **options: Any) -> None:
    """Denoise the image IN into OUT, with a record of how in OUT's name ending in .json.

    IN may be a folder with a DICOM series. OUT is then a NIfTI file, or another folder, for a derived DICOM series.

    IN may be an OME-Zarr image, or a zarr array. OUT is then an OME-Zarr image, with the record in its metadata. What
    was interrupted goes on with the same command.

    \b
    Example: nlmeans denoise t1.nii.gz t1_denoised.nii.gz --noise rician
    """
    with one_line_errors(interruption(target)):
        summary = denoise_file(source, target, progress=not quiet and sys.stderr.isatty(), **options)
    if not quiet:
        say(summary)


@main.command("batch")
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option(
    "--out", type=PATH, help="Folder for the results; of a BIDS dataset derivatives/nlmeans in it if not given."
)
@click.option("--sigma", type=Sigma(), help=SIGMA_HELP)
@click.option(
    "--noise",
    type=click.Choice(["auto", *NOISES]),
    default="auto",
    help="Kind of noise. auto: in a BIDS dataset rician for MR magnitude images, else gaussian.",
)
@method_options
@click.option(
    "--suffix",
    "suffixes",
    multiple=True,
    help=f"Which images of a BIDS dataset, such as bold; may be repeated. If not given {', '.join(bids.USUAL)}.",
)
@click.option("--participant", "participants", multiple=True, help="Label in a BIDS dataset; may be repeated.")
@click.option("--session", "sessions", multiple=True, help="Label in a BIDS dataset; may be repeated.")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes, each with a scan of its own.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker; the cores divided by the workers.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--quiet", is_flag=True, help="Say nothing but what failed.")
@verbose_option("Say what is chosen and why; with one worker.")
def batch_command(
    sources: tuple[str, ...],
    workers: int,
    threads: int | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Denoise many scans: files, quoted patterns such as 'scans/**/*.nii.gz', folders, or one BIDS dataset.

    A scan that fails stops no other; at the end those are named, and the exit code is 1. A second run skips what is
    finished, unless the scan or the settings changed. report.html shows all of them.

    \b
    Example: nlmeans batch my_bids_dataset --workers 4
    """
    with one_line_errors("Interrupted: what is finished stays; run it again to go on."):
        if options["memory"] is None and workers > 1:
            device = torch.device(device_or_gpu(options["device"]))
            options["memory"] = str(available(device) // workers)
        jobs, out, description = batch.cohort(sources, **options)
        if dry_run:
            for job in jobs:
                say(f"{job.name} -> {job.target}: {job.options['noise']} noise")
            return
        if not quiet:
            say(f"{len(jobs)} scans into {out}")
        threads = threads or max(1, torch.get_num_threads() // workers)
        with reporting(not quiet and sys.stderr.isatty(), "scans") as progress:
            outcomes = batch.run_all(jobs, workers, threads, progress)
        written = report.write(out, outcomes, description)
    if not quiet:
        say(f"{report.summary(outcomes)}; see {written}")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        click.echo(f"Failed: {outcome.job.name}: {outcome.reason}", err=True)
    if failed:
        raise SystemExit(1)


@main.command("noise")
@click.argument("source", metavar="IN", type=PATH)
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "rician"]),
    default="gaussian",
    help="Kind of noise; rician for MR magnitude images.",
)
@mask_option
@dicom_option
def noise_command(source: Path, noise: str, mask_file: Path | None, dicom_series: str | None) -> None:
    """Print the noise of the image IN: sigma, signal-to-noise ratio, and what was assumed."""
    with one_line_errors():
        found = noise_levels(source, noise, mask_file, dicom_series)
    for name, sigma, mean in found:
        ratio = f"{mean / sigma:.1f}" if sigma > 0 else "without noise"
        click.echo(f"{name and name + ': '}sigma {sigma:.4g}, mean of the object {mean:.4g}, SNR {ratio}")
    where = f"inside {mask_file}" if mask_file else "of the object (above Otsu's threshold)"
    click.echo(
        f"Assumed: {noise} noise, the same everywhere and independent from voxel to voxel; "
        f"read from the flattest parts {where}. "
        "Interpolated, filtered or zero-filled scans have correlated noise, of which this sees too little."
    )


@main.command()
@click.option("--out", type=PATH, default=Path("nlmeans-demo"), help="Folder for the results; made if it is not there.")
@click.option(
    "--sample", type=click.Choice(["head", "thick", "slice"]), default="head", help="Which of the shipped samples."
)
@click.option("--method", type=click.Choice(["auto", *METHODS]), default="auto", help="How to denoise.")
def demo(out: Path, sample: str, method: str) -> None:
    """Denoise a shipped sample: a head phantom with Rician noise, whose truth is known."""
    with one_line_errors():
        source, facts = samples.path(sample), samples.truth()[f"{sample}.nii.gz"]
        out.mkdir(parents=True, exist_ok=True)
        target, picture = out / f"{sample}_denoised.nii.gz", out / f"{sample}.png"
        summary = denoise_file(
            source,
            target,
            method=method,
            noise=facts["noise"],
            picture=picture,
            overwrite=True,
            progress=sys.stderr.isatty(),
        )
        clean, noisy, denoised = (nifti.read(path).data for path in (samples.path(facts["clean"]), source, target))
    click.echo(f"{summary} (true sigma {facts['sigma']})")
    head = clean > 0
    before, after = (
        (psnr(clean, image), psnr(clean, image, mask=head), ssim(clean, image, mask=head))
        for image in (noisy, denoised)
    )
    click.echo("        PSNR everywhere  PSNR in the head  SSIM in the head")
    gain = tuple(b - a for a, b in zip(before, after, strict=True))
    for name, (everywhere, inside, similarity) in (("before", before), ("after", after), ("gain", gain)):
        click.echo(f"{name:8}{everywhere:12.2f} dB {inside:14.2f} dB {similarity:17.4f}")
    click.echo(f"Wrote {target} and {picture}")


@main.command()
def info() -> None:
    """Print versions, devices, backends, methods, and what would be chosen."""
    python = f"Python {platform.python_version()}, {platform.system()}"
    click.echo(f"nlmeans {nlmeans.__version__}, torch {torch.__version__}, {python}")
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in devices:
        device = torch.device(name)
        about = f"{torch.get_num_threads()} threads" if name == "cpu" else torch.cuda.get_device_name(device)
        click.echo(f"device   {name}: {about}, {readable(available(device))} for a run by default")
    for backend in BACKENDS.values():
        click.echo(f"backend  {backend.name}: {backend.summary}")
    click.echo("         auto takes cpu or gpu where it can, else loop (full for small images)")
    for key, method in METHODS.items():
        click.echo(f"method   {key}: {method.summary}")


if __name__ == "__main__":
    main()
