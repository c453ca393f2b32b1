"""The command ``nlmeans demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nlmeans.cli.errors import one_line_errors
from nlmeans.cli.option_types import PATH
from nlmeans.cli.options import method_option
from nlmeans.files import samples


@click.command("demo")
@click.option(
    "--out",
    type=PATH,
    default=Path("nlmeans-demo"),
    show_default=True,
    help="Folder for the results; it is made if it does not exist.",
)
@click.option(
    "--sample",
    type=click.Choice(["head", "thick", "slice", "confocal", "ct", "pet"]),
    default="head",
    show_default=True,
    help="Sample to denoise.",
)
@method_option()
def demo_command(out: Path, sample: str, method: str) -> None:
    """Denoise a sample that comes with the package.

    The samples are images of a head phantom with Rician noise, of cells under a confocal microscope, of a belly in CT,
    and of a torso in PET. The command writes the denoised NIfTI file and a picture. It also prints how close the image
    is to the noise-free truth, before and after: PSNR (peak signal-to-noise ratio) and SSIM (structural similarity).
    For both, higher is better.
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
    true = f"gain {facts['gain']}, offset {facts['offset']}" if "gain" in facts else f"sigma {facts['sigma']}"
    click.echo(f"{summary} (the truth: {facts['noise']} noise, {true})")
    background = float(clean.min())
    inside, peak = clean > background, float(clean.max()) - background
    before, after = (
        (
            psnr(clean, image, peak=peak),
            psnr(clean, image, peak=peak, mask=inside),
            ssim(clean, image, peak=peak, mask=inside),
        )
        for image in (noisy, denoised)
    )
    click.echo("        PSNR everywhere  PSNR in the object  SSIM in the object")
    gain = tuple(b - a for a, b in zip(before, after, strict=True))
    for name, (everywhere, in_object, similarity) in (("before", before), ("after", after), ("gain", gain)):
        click.echo(f"{name:8}{everywhere:12.2f} dB {in_object:16.2f} dB {similarity:19.4f}")
    click.echo(f"Wrote {target} and {picture}")
