"""The command ``nlmeans noise``."""

from __future__ import annotations

from pathlib import Path

import click

from nlmeans.cli.errors import one_line_errors
from nlmeans.cli.option_types import PATH
from nlmeans.cli.options import dicom_option, resample_option
from nlmeans.files.paths import check_exists
from nlmeans.noise.kinds import NOISES


@click.command("noise")
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
        from nlmeans.noise.level_curve import curve_as_text

        found = measure_noise(source, noise, mask_file, dicom_series, picture, resample)
    for name, model, mean in found:
        sigma = model.sigma or 0.0
        ratio = "" if model.follows_intensity else f", SNR {mean / sigma:.1f}" if sigma > 0 else ", SNR infinite"
        click.echo(f"{name and name + ': '}{model}; mean of the object {mean:.4g}{ratio}")
        for sentence in (*model.evidence, *model.doubts):
            click.echo(f"  - {sentence}")
        if model.curve is not None:
            click.echo(f"  - to denoise with it: --noise curve --curve {curve_as_text(model.told_curve)}")
