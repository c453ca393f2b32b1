"""The command ``nlmeans info``."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from nlmeans.core.memory import available, size_text
from nlmeans.methods.registry import METHODS


@click.command("info")
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
