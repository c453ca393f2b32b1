"""An interface to ``nlmeans denoise`` for nipype, which has to be installed: ``pip install nipype``.

Inputs have the names of the options, with underscores::

    from nlmeans.cli.nipype import Denoise

    Denoise(in_file="t1.nii.gz", noise="rician", residual="removed.nii.gz").run().outputs.out_file
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from nipype.interfaces.base import CommandLine, CommandLineInputSpec, Directory, File, TraitedSpec, isdefined, traits

from nlmeans.cli.denoise import denoise_command
from nlmeans.cli.inputs import Input, inputs_of

INPUTS = inputs_of(denoise_command)
OUTPUTS = [one for one in INPUTS if one.kind == "output"]


def trait_of(one: Input) -> Any:
    """Make the trait of an argument or option."""
    facts: dict[str, Any] = {"desc": one.help, "argstr": f"{one.flag} %s".lstrip()}
    if one.name == "in_file":
        return traits.Either(File(exists=True), Directory(exists=True), mandatory=True, position=0, **facts)
    if one.name == "out_file":
        where = {"name_source": ["in_file"], "name_template": "%s_denoised", "keep_extension": True}
        return File(position=1, hash_files=False, **where, **facts)
    if one.kind == "file":
        return File(exists=True, **facts)
    if one.kind == "output":
        return File(hash_files=False, **facts)
    if one.kind == "flag":
        return traits.Bool(desc=one.help, argstr=one.flag)
    if one.kind == "integer":
        return traits.Int(**facts)
    if one.kind == "number":
        return traits.Float(**facts)
    if one.choices:
        return traits.Enum(*one.choices, **facts)
    return traits.Either(traits.Str(), traits.Int(), traits.Float(), **facts)


DenoiseInputSpec: Any = type("DenoiseInputSpec", (CommandLineInputSpec,), {one.name: trait_of(one) for one in INPUTS})
DenoiseOutputSpec: Any = type("DenoiseOutputSpec", (TraitedSpec,), {one.name: File(desc=one.help) for one in OUTPUTS})


class Denoise(CommandLine):  # type: ignore[misc]  # nipype has no types
    """Denoise an image by ``nlmeans denoise``.

    Without `out_file`, the result is called like `in_file` with ``_denoised``, in the working folder. The outputs are
    the files that were asked for. `nlmeans denoise` refuses to replace a file unless `overwrite` is True.
    """

    _cmd = "nlmeans denoise"
    input_spec = DenoiseInputSpec
    output_spec = DenoiseOutputSpec

    def _format_arg(self, name: str, trait_spec: Any, value: Any) -> Any:
        """Quote what the shell would split: nipype runs the command line in a shell."""
        quoted = shlex.quote(value) if isinstance(value, str) and name != "args" else value
        return super()._format_arg(name, trait_spec, quoted)

    def _list_outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = super()._list_outputs()
        for one in OUTPUTS:
            value = getattr(self.inputs, one.name)
            if one.name != "out_file" and isdefined(value):
                found[one.name] = str(Path(value).absolute())
        return found
