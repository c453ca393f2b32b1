"""The command ``nlmeans bids``: a BIDS App (Gorgolewski et al. 2017, doi:10.1371/journal.pcbi.1005209)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from nlmeans.cli.batch import run_cohort
from nlmeans.cli.errors import one_line_errors
from nlmeans.cli.option_types import PATH
from nlmeans.cli.options import cohort_options
from nlmeans.files.bids import DESCRIPTION, is_dataset
from nlmeans.files.paths import check_exists

LABEL_OPTIONS = ("--participant-label", "--session-label")


def with_hyphens(word: str) -> str:
    """The name of an option as this command has it. Many BIDS Apps write underscores.

    >>> with_hyphens("--participant_label")
    '--participant-label'
    """
    return word.replace("_", "-")


def one_label_each(words: Iterable[str]) -> list[str]:
    """Repeat an option of labels before each label after the first, as click expects it.

    >>> one_label_each(["data", "--participant-label", "01", "02", "--quiet"])
    ['data', '--participant-label', '01', '--participant-label', '02', '--quiet']
    """
    result: list[str] = []
    option = ""
    for word in words:
        if word.startswith("-"):
            option = word if with_hyphens(word) in LABEL_OPTIONS else ""
        elif option and result[-1] != option:
            result.append(option)
        result.append(word)
    return result


class BidsApp(click.Command):
    """A command whose options of labels take several values each."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, one_label_each(args))


@click.command("bids", cls=BidsApp, context_settings={"token_normalize_func": with_hyphens})
@click.argument("dataset", metavar="BIDS_DIR", type=PATH)
@click.argument("out", metavar="OUTPUT_DIR", type=PATH)
@click.argument("level", metavar="participant", type=click.Choice(["participant"]))
@click.option(
    "--participant-label",
    "participants",
    multiple=True,
    metavar="LABEL...",
    help="Participants to denoise, such as 01 02, with or without sub-. By default all.",
)
@click.option(
    "--session-label",
    "sessions",
    multiple=True,
    metavar="LABEL...",
    help="Sessions to denoise, such as 01 02, with or without ses-. By default all.",
)
@click.option(
    "--skip-bids-validation",
    "--skip-bids-validator",
    is_flag=True,
    expose_value=False,
    help="Accepted because other BIDS Apps have it. It changes nothing: nlmeans never runs the validator.",
)
@cohort_options
@click.version_option(package_name="nlmeans", prog_name="nlmeans")
def bids_command(dataset: Path, out: Path, level: str, **options: Any) -> None:
    """Denoise a BIDS dataset, called as a BIDS App.

    BIDS_DIR is the dataset. OUTPUT_DIR is the folder for the derivatives; it is made if it does not exist. The only
    level of analysis is participant. The results are those of 'nlmeans batch BIDS_DIR --out OUTPUT_DIR'.

    Labels come after the three arguments. Names of options may have underscores instead of hyphens.

    \b
    Example:
      nlmeans bids my_dataset derivatives participant --participant-label 01 02
    """
    with one_line_errors():
        check_exists(dataset)
        if not is_dataset(dataset):
            raise ValueError(
                f"{dataset} is no BIDS dataset: it has no {DESCRIPTION}. Use 'nlmeans batch' for other folders"
            )
    run_cohort((str(dataset),), out=out, **options)
