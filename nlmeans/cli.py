"""The command line: ``nlmeans denoise``, ``batch``, ``noise``, ``demo`` and ``info``.

Options are declared here without importing torch, which takes more than a second. Help, completion and wrong arguments
therefore answer at once. A command imports what computes once its arguments and inputs have been checked.
"""

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
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from nlmeans.core.memory import available, shortage, size_text
from nlmeans.core.progress import Cancelled, reporting
from nlmeans.files import bids, samples
from nlmeans.files.paths import check_exists, existing, one_line
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import NOISES
from nlmeans.operator import BACKEND_NAMES

EXPECTED_ERRORS = (ValueError, TypeError, OSError, MemoryError, Cancelled)


# ---------------------------------------------------------------- types of options


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A number, or one word."""

    def __init__(self, word: str) -> None:
        self.word, self.name = word, f"number|{word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == self.word:
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor the word {self.word}", param, ctx)


class RadiusType(click.ParamType):  # type: ignore[type-arg]
    """``3`` for all axes, or ``3,3,1`` for each."""

    name = "voxels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number nor one number per axis such as 3,3,1", param, ctx)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


class CurrentChoice(click.Choice[str]):
    """A choice among names that are looked up when the command runs, because other packages can add some."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self.names = names
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.names())

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return "NAME"


class NameOption(click.Option):
    """An option with many choices. Its help text lists them, because they would not fit into a line as metavar."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or self.help is None or not isinstance(self.type, click.Choice):
            return record
        listed = f"{self.help} One of {', '.join(self.type.choices)}."
        return record[0], record[1].replace(self.help, listed, 1)


def method_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--method",
        cls=NameOption,
        type=CurrentChoice(lambda: ("auto", *METHODS.names())),
        default="auto",
        show_default=True,
        help="Denoising method; see 'nlmeans info'.",
    )


# ---------------------------------------------------------------- errors and output


@contextlib.contextmanager
def one_line_errors(interrupted: str = "Interrupted: nothing was left half-written.") -> Iterator[None]:
    """Print an error that the user can correct, or `interrupted`, as one line on standard error.

    After an error nothing was written. An interruption may come so late that the complete result is still written.
    """
    try:
        with shortage():
            yield
    except EXPECTED_ERRORS as error:
        raise click.ClickException(one_line(error)) from error
    except KeyboardInterrupt as error:
        atexit.register(hush)
        click.echo(interrupted, err=True)
        raise SystemExit(130) from error


def interruption(target: Path) -> str:
    """Say what a run that was interrupted leaves."""
    if target.name.endswith(".zarr"):
        return f"Interrupted: give the same command again to resume. {target} does not exist until it is complete."
    return "Interrupted: nothing was left half-written."


def hush() -> None:
    """Silence errors from zarr reads that were still running when the user interrupted."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def set_verbose(context: click.Context, _: click.Parameter, verbose: bool) -> None:
    """Log what is chosen until this command ends; later commands in the same process must not be affected."""
    log = logging.getLogger("nlmeans")
    if verbose:
        context.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.INFO)


def verbose_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--verbose", is_flag=True, expose_value=False, callback=set_verbose, help=text)


def say(text: str) -> None:
    """Print to standard output. File names that are not valid text are printed with replacement characters."""
    click.echo(click.format_filename(text))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nlmeans")
def main() -> None:
    """Denoise medical volumes by non-local means."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if sys.stderr.isatty():
        logging.getLogger("nlmeans.kernels").setLevel(logging.INFO)  # why the first run takes longer
    if threading.current_thread() is threading.main_thread():
        # Clusters end a job by SIGTERM. Treat it like Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        click.get_current_context().call_on_close(lambda: signal.signal(signal.SIGTERM, before))
        click.get_current_context().call_on_close(ignore_late_interrupts)


@functools.cache
def ignore_late_interrupts() -> None:
    """Ignore Ctrl-C once Python ends: nothing is left to stop, and libraries would print a traceback of their cleanup.

    Python calls exit functions in reverse order. This one is registered when a command ends, after the libraries' own.
    """
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


PATH = click.Path(path_type=Path)

dicom_option = click.option(
    "--dicom-series", help="Number or UID of the DICOM series to read, if a folder holds several."
)

resample_option = click.option(
    "--resample",
    is_flag=True,
    help="Bring a mask, sigma map or phase of another grid to the voxels of IN. One of the same grid that is stored in "
    "another orientation is reoriented without this option.",
)

sigma_option = click.option(
    "--sigma",
    type=NumberOr("map"),
    help="Standard deviation of the noise, in image units; estimated by default. 'map' estimates it at every voxel, "
    "for noise that varies in space. With poisson noise, it is the read noise of the detector, and 0 by default.",
)

METHOD_OPTIONS = (
    method_option(),
    click.option(
        "--noise",
        type=click.Choice(["auto", *NOISES]),
        default="auto",
        show_default=True,
        help="Kind of noise: rician for MR magnitude images, chi for the sum of squares of several coils, poisson for "
        "counts (PET, microscopy), gaussian for anything else. 'auto' finds it in each image, unless sigma is given, "
        "which then stands for gaussian noise.",
    ),
    click.option(
        "--gain",
        type=NumberOr("auto"),
        default=1.0,
        show_default=True,
        help="Image units per photon, for poisson noise. 'auto' finds gain, offset and read noise.",
    ),
    click.option(
        "--offset",
        type=float,
        default=0.0,
        show_default=True,
        help="Image value without any photon, in image units, for poisson noise.",
    ),
    click.option("--coils", type=float, help="Effective number of coils, for chi noise; found in the air by default."),
    click.option(
        "--white",
        is_flag=True,
        help="Take the noise of neighbouring voxels for independent, without looking.",
    ),
    click.option(
        "--modality",
        help="DICOM's code of what made the image, which limits the kinds of noise to look for: MR, CT, PT, NM, GM "
        "(microscopy). DICOM and BIDS data say it themselves.",
    ),
    click.option(
        "--strength",
        type=float,
        default=1.0,
        show_default=True,
        help="How strong the method takes the noise to be, relative to what it is: 0.5 removes less, 2 removes more. "
        "It acts on every method.",
    ),
    click.option(
        "--h",
        type=float,
        help="Filter strength, in image units. A larger value smooths more. By default it is a multiple of sigma that "
        "depends on the method.",
    ),
    click.option(
        "--patch-radius",
        type=RadiusType(),
        help="Radius r of the patches, in voxels: 3 for all axes, or 3,3,1 for each. A patch is 2r+1 voxels wide. By "
        "default the method chooses r.",
    ),
    click.option(
        "--search-radius",
        type=RadiusType(),
        help="Radius r of the search window, in voxels: 5 for all axes, or 5,5,2 for each. The window is 2r+1 voxels "
        "wide; methods that group patches take them from it. By default the method chooses r.",
    ),
    click.option("--despeckle", is_flag=True, help="Replace impulses and dead voxels before denoising."),
    click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the stochastic method."),
    click.option(
        "--voxel-radii",
        is_flag=True,
        help="Count radii in voxels along all axes. Without this option, a radius counts voxels along the axis with "
        "the smallest voxels, and spans the same distance in mm along the others.",
    ),
    click.option(
        "--backend",
        cls=NameOption,
        type=CurrentChoice(lambda: ("auto", *BACKEND_NAMES)),
        default="auto",
        show_default=True,
        help="Backend that computes the operator; see 'nlmeans info'.",
    ),
    click.option(
        "--device", help="Device to compute on: cpu, cuda, cuda:1, … By default cuda if there is a GPU, else cpu."
    ),
    click.option(
        "--memory",
        help="Memory for the computation, such as 2GB or 512MiB. By default half of the free memory, or four fifths of "
        "the free memory of a GPU.",
    ),
    resample_option,
    click.option("--float", "as_float", is_flag=True, help="Store float32 instead of the type of IN."),
)
"""Options that `denoise` and `batch` share."""


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(METHOD_OPTIONS):
        command = option(command)
    return command


def as_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a command into arguments of Python."""
    others = {name: value for name, value in options.items() if name != "white"}
    return {**others, "correlation": None if options["white"] else "auto"}


@main.command("denoise")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH)
@sigma_option
@click.option("--sigma-map", "sigma_file", type=PATH, help="Image with sigma at every voxel, instead of --sigma.")
@method_options
@click.option("--mask", "mask_file", type=PATH, help="Mask image: only voxels that are not zero are denoised.")
@click.option(
    "--share-weights",
    is_flag=True,
    help="Let all volumes of a 4D image decide together which voxels are similar; useful for diffusion.",
)
@dicom_option
@click.option("--report", "picture", type=PATH, help="PNG file for a picture of before, after, and the removed noise.")
@click.option(
    "--noise-map",
    type=PATH,
    help="Image file for sigma at every voxel. For a series whose volumes are denoised together, one volume.",
)
@click.option("--residual", type=PATH, help="Image file for what was removed: IN minus OUT.")
@click.option(
    "--rank-map",
    type=PATH,
    help="Image file for the number of components kept around every voxel; only with --method series.",
)
@click.option(
    "--phase",
    "phase_file",
    type=PATH,
    help="Phase image of IN, in radians or a scanner's units. Both are denoised as complex numbers, which leaves less "
    "noise and no bias. By default the file that BIDS names beside IN (part-mag, part-phase).",
)
@click.option(
    "--noise-volumes",
    type=click.IntRange(0),
    default=0,
    help="Number of volumes at the end of a series that hold noise alone: they give sigma at every voxel, and stay as "
    "they are.",
)
@click.option("--phase-out", type=PATH, help="Image file for the phase of the result, in radians.")
@click.option(
    "--real-part",
    is_flag=True,
    help="Write the real part of a complex image instead of its magnitude: air is then 0 on average.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace existing outputs, and the unfinished zarr image of another run."
)
@click.option("--quiet", is_flag=True, help="Print neither the progress bar nor the summary.")
@click.option(
    "--progress",
    is_flag=True,
    help="Print the progress bar also where standard error is no terminal, for a program that reads it.",
)
@verbose_option("Print what is chosen, and why.")
def denoise_command(source: Path, target: Path, quiet: bool, progress: bool, **options: Any) -> None:
    """Denoise the image IN and write the result to OUT.

    IN and OUT are image files: NIfTI, NRRD, MetaImage, FreeSurfer, TIFF and others; 'nlmeans info' lists them. OUT
    keeps the shape, the type and the geometry of IN, and in the same format the rest of its header. What the format of
    OUT cannot hold is said. A file next to OUT, with the same name and the ending .json, records how the result was
    made.

    IN may also be a folder with a DICOM series, or an enhanced DICOM file. OUT is then an image file, or a folder for a
    derived DICOM series.

    IN may also be an OME-Zarr image or a zarr array. OUT is then an OME-Zarr image, with the record in its metadata. If
    a run is interrupted, give the same command again to resume it.

    \b
    Example:
      nlmeans denoise t1.nii.gz t1_denoised.nii.gz --noise rician
    """
    with one_line_errors(interruption(target)):
        check_exists(source, *(options[name] for name in ("sigma_file", "mask_file", "phase_file")))
        from nlmeans.files.denoise import denoise_file

        shown = progress or (not quiet and sys.stderr.isatty())
        summary = denoise_file(source, target, progress=shown, **as_arguments(options))
    if not quiet:
        say(summary)


@main.command("batch")
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option(
    "--out",
    type=PATH,
    help="Folder for the results; by default derivatives/nlmeans inside a BIDS dataset. Required for anything else.",
)
@sigma_option
@method_options
@click.option(
    "--suffix",
    "suffixes",
    multiple=True,
    help="Suffix of the images to denoise in a BIDS dataset, such as bold. May be repeated. By default "
    f"{', '.join(bids.USUAL)}.",
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
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of scans denoised at a time, each in its own process.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of each worker. By default the cores divided by the workers."
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--quiet", is_flag=True, help="Print only failures.")
@verbose_option("Print what is chosen, and why. Works only with one worker.")
def batch_command(
    sources: tuple[str, ...],
    workers: int,
    threads: int | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Denoise many scans.

    IN is a file, a folder, a quoted pattern such as 'scans/**/*.nii.gz', or one BIDS dataset.

    A failed scan does not stop the others. The command names it at the end and returns exit code 1. A second run skips
    finished scans, unless the scan or the settings changed. The file report.html shows every scan before, after, and
    what was removed.

    \b
    Example:
      nlmeans batch my_bids_dataset --workers 4
    """
    with one_line_errors("Interrupted: finished scans are kept; give the same command again to resume."):
        for given in sources:
            next(existing(given))  # raises an error if there is none
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


@main.command("noise")
@click.argument("source", metavar="IN", type=PATH)
@click.option(
    "--noise",
    type=click.Choice(["auto", *NOISES]),
    default="auto",
    show_default=True,
    help="Kind of noise, if it is known; see 'nlmeans denoise --help'.",
)
@click.option("--mask", "mask_file", type=PATH, help="Mask image: the noise is measured where it is not zero.")
@dicom_option
@resample_option
@click.option(
    "--plot",
    "picture",
    type=PATH,
    help="PNG file for a picture: how strong the noise is at each intensity, what neighbours have in common, and where "
    "this was read. Of a series, for its first volume.",
)
def noise_command(
    source: Path, noise: str, mask_file: Path | None, dicom_series: str | None, picture: Path | None, resample: bool
) -> None:
    """Print what noise the image IN has, and why.

    For each volume, the command prints the kind of noise, sigma (its standard deviation), whether neighbouring voxels
    have noise in common, the mean of the object, and the signal-to-noise ratio (SNR). Then it prints what in the volume
    speaks for this.

    \b
    Example:
      nlmeans noise t1.nii.gz
    """
    with one_line_errors():
        check_exists(source, mask_file)
        from nlmeans.files.denoise import measure_noise

        found = measure_noise(source, noise, mask_file, dicom_series, picture, resample)
    for name, model, mean in found:
        counts, sigma = model.kind == "poisson", model.sigma or 0.0
        ratio = "" if counts else f", SNR {mean / sigma:.1f}" if sigma > 0 else ", SNR infinite"
        click.echo(f"{name and name + ': '}{model}; mean of the object {mean:.4g}{ratio}")
        for sentence in model.evidence:
            click.echo(f"  - {sentence}")


@main.command("demo")
@click.option(
    "--out",
    type=PATH,
    default=Path("nlmeans-demo"),
    show_default=True,
    help="Folder for the results; it is made if it does not exist.",
)
@click.option(
    "--sample",
    type=click.Choice(["head", "thick", "slice"]),
    default="head",
    show_default=True,
    help="Sample to denoise.",
)
@method_option()
def demo_command(out: Path, sample: str, method: str) -> None:
    """Denoise a sample that comes with the package.

    The samples are images of a head phantom with Rician noise. The command writes the denoised NIfTI file and a
    picture. It also prints how close the image is to the noise-free truth, before and after: PSNR (peak signal-to-noise
    ratio) and SSIM (structural similarity). For both, higher is better.
    """
    with one_line_errors():
        from nlmeans.core.metrics import psnr, ssim
        from nlmeans.files.denoise import denoise_file
        from nlmeans.files.formats import nifti

        source, facts = samples.path(sample), samples.truth()[f"{sample}.nii.gz"]
        out.mkdir(parents=True, exist_ok=True)
        target, picture = out / f"{sample}_denoised.nii.gz", out / f"{sample}.png"
        summary = denoise_file(
            source,
            target,
            method=method,
            picture=picture,
            overwrite=True,
            progress=sys.stderr.isatty(),
        )
        clean, noisy, denoised = (
            nifti.read_nifti(path).data for path in (samples.path(facts["clean"]), source, target)
        )
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


@main.command("info")
def info_command() -> None:
    """Print versions, devices, backends, methods and file formats."""
    import torch

    from nlmeans.files.formats.registry import FORMATS
    from nlmeans.operator.backends import BACKENDS

    python = f"Python {platform.python_version()}, {platform.system()}"
    click.echo(f"nlmeans {version('nlmeans')}, torch {torch.__version__}, {python}")
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in devices:
        device = torch.device(name)
        about = f"{torch.get_num_threads()} threads" if name == "cpu" else torch.cuda.get_device_name(device)
        click.echo(f"device   {name}: {about}, up to {size_text(available(device))} per run by default")
    for backend in BACKENDS.values():
        click.echo(f"backend  {backend.name}: {backend.summary}")
    click.echo("         auto uses cpu or gpu if that can do what is asked, else loop (full for small images)")
    click.echo("method   auto: bayes, unless it would take more than ten minutes or more memory than is free")
    for key, method in METHODS.items():
        click.echo(f"method   {key}: {method.summary}")
    for one in FORMATS:
        library = f"by {one.library}" if one.available else one.remedy
        notes = [" ".join(one.endings), library, one.limits]
        click.echo(f"format   {one.name}: {'; '.join(note for note in notes if note)}")


if __name__ == "__main__":
    main()
