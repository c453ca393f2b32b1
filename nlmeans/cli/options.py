"""Options that commands share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import click

from nlmeans.cli.option_types import CurrentChoice, NameOption, NumberOr, RadiusType
from nlmeans.files.bids import USUAL
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import NOISES
from nlmeans.operator import BACKEND_NAMES


def method_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--method",
        cls=NameOption,
        type=CurrentChoice(lambda: ("auto", *METHODS.names())),
        default="auto",
        show_default=True,
        help="Denoising method; see 'nlmeans info'.",
    )


def set_verbose(context: click.Context, _: click.Parameter, verbose: bool) -> None:
    """Log what is chosen until this command ends; later commands in the same process must not be affected."""
    log = logging.getLogger("nlmeans")
    if verbose:
        context.call_on_close(functools.partial(log.setLevel, log.level))
        log.setLevel(logging.INFO)


def verbose_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--verbose", is_flag=True, expose_value=False, callback=set_verbose, help=text)


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
        "counts (PET, microscopy), curve for a sigma that follows the intensity in another way, gaussian for anything "
        "else. 'auto' finds it in each image, unless sigma is given, which then stands for gaussian noise.",
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
        "--curve",
        help="Standard deviation of the noise over intensity, both in image units, for --noise curve: pairs of "
        "intensity and sigma, such as 0:3,500:8, linear between them. Found in the image by default.",
    ),
    click.option(
        "--white",
        is_flag=True,
        help="Take the noise of neighbouring voxels for independent, without looking.",
    ),
    click.option("--even", is_flag=True, help="Take the noise for equally strong everywhere, without looking."),
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
"""Options that `denoise`, `batch` and `bids` share."""


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(METHOD_OPTIONS):
        command = option(command)
    return command


COHORT_OPTIONS = (
    sigma_option,
    *METHOD_OPTIONS,
    click.option(
        "--maps",
        is_flag=True,
        help="Also write, next to each result, sigma at every voxel (noisemap) and what was removed (residual).",
    ),
    click.option(
        "--suffix",
        "suffixes",
        multiple=True,
        help="Suffix of the images to denoise in a BIDS dataset, such as bold. May be repeated. By default "
        f"{', '.join(USUAL)}.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of scans denoised at a time, each in its own process.",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="Threads of each worker. By default the cores divided by the workers."
    ),
    click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing."),
    click.option("--quiet", is_flag=True, help="Print only failures."),
    verbose_option("Print what is chosen, and why. Works only with one worker."),
)
"""Options that `batch` and `bids` share."""


def cohort_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(COHORT_OPTIONS):
        command = option(command)
    return command


def as_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a command into arguments of Python."""
    others = {name: value for name, value in options.items() if name not in ("white", "even")}
    return {
        **others,
        "correlation": None if options["white"] else "auto",
        "variation": None if options["even"] else "auto",
    }
