"""The command ``nlmeans denoise``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nlmeans.cli.errors import interruption, one_line_errors, say
from nlmeans.cli.option_types import OUTPUT, PATH
from nlmeans.cli.options import (
    as_arguments,
    dicom_option,
    method_options,
    sigma_option,
    verbose_option,
)
from nlmeans.files.paths import check_exists


@click.command("denoise")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=OUTPUT)
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
@click.option(
    "--report", "picture", type=OUTPUT, help="PNG file for a picture of before, after, and the removed noise."
)
@click.option(
    "--noise-map",
    type=OUTPUT,
    help="Image file for sigma at every voxel. For a series whose volumes are denoised together, one volume.",
)
@click.option("--residual", type=OUTPUT, help="Image file for what was removed: IN minus OUT.")
@click.option(
    "--rank-map",
    type=OUTPUT,
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
@click.option("--phase-out", type=OUTPUT, help="Image file for the phase of the result, in radians.")
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
