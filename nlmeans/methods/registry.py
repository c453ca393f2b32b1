"""The methods by name: those of this package and those that other packages register.

A package registers a method by an entry point in the group ``nlmeans.methods``. In its ``pyproject.toml``::

    [project.entry-points."nlmeans.methods"]
    twice = "my_package.twice:TWICE"

where ``TWICE`` is a `Method`. ``METHODS["twice"] = TWICE`` does the same for the running process.

Names can be listed without importing any method, and so without torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlmeans.methods.method import Method

log = logging.getLogger("nlmeans")

GROUP = "nlmeans.methods"
"""Group of the entry points."""

BUILT_IN = {
    "classic": "nlmeans.methods.means:CLASSIC",
    "patchwise": "nlmeans.methods.means:PATCHWISE",
    "linear": "nlmeans.methods.means:LINEAR",
    "stochastic": "nlmeans.methods.means:STOCHASTIC",
    "dct": "nlmeans.methods.transform:DCT",
    "wiener": "nlmeans.methods.transform:WIENER",
    "pri": "nlmeans.methods.transform:PRI",
    "bayes": "nlmeans.methods.grouped:BAYES",
    "best": "nlmeans.methods.grouped:BEST",
    "subspace": "nlmeans.methods.grouped:SUBSPACE",
    "series": "nlmeans.methods.series:SERIES",
}
"""The methods of this package, written like entry points."""


class Registry(MutableMapping[str, "Method"]):
    """Methods by name. Methods of other packages are imported when the registry is first read, others when needed."""

    def __init__(self, built_in: Mapping[str, str]) -> None:
        self.methods: dict[str, Method | EntryPoint] = {
            name: EntryPoint(name, place, GROUP) for name, place in built_in.items()
        }
        self.complete = False

    @cached_property
    def entries(self) -> EntryPoints:
        """Entry points of other packages."""
        return entry_points(group=GROUP)

    def names(self) -> tuple[str, ...]:
        """Return all names without importing any method. Some of other packages may turn out not to work."""
        others = [] if self.complete else [entry.name for entry in self.entries if entry.name != "auto"]
        return tuple(dict.fromkeys([*self.methods, *others]))

    def load(self) -> None:
        """Add the methods of other packages. Log a warning for each one that cannot be loaded, and leave it out."""
        if self.complete:
            return
        self.complete = True  # set first, because a package that is loaded here may read the registry
        for entry in self.entries:
            try:
                if entry.name in self.methods:
                    raise ValueError("there is a method with this name already")
                self[entry.name] = entry.load()
            except Exception as error:  # any error in another package
                log.warning("left out the method %r of %s: %s", entry.name, entry.value, error)

    def __getitem__(self, name: str) -> Method:
        self.load()
        method = self.methods[name]
        if isinstance(method, EntryPoint):
            method = self.methods[name] = method.load()
        return method

    def __setitem__(self, name: str, method: Method) -> None:
        from nlmeans.methods.method import Method

        if not isinstance(method, Method):
            raise TypeError(f"METHODS[{name!r}] is a {type(method).__name__}; give a nlmeans.methods.method.Method")
        if name == "auto":
            raise ValueError("METHODS['auto'] cannot be set, because the engine itself defines auto; use another name")
        self.methods[name] = method

    def __delitem__(self, name: str) -> None:
        self.load()
        del self.methods[name]

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(self.methods)

    def __len__(self) -> int:
        self.load()
        return len(self.methods)

    def __repr__(self) -> str:
        return f"<methods {', '.join(self)}>"


METHODS = Registry(BUILT_IN)
"""All methods by name."""


def method_names() -> tuple[str, ...]:
    """Return the names that ``method=`` accepts now.

    >>> method_names()[:3]
    ('auto', 'classic', 'patchwise')
    """
    return ("auto", *METHODS)


def single_methods() -> tuple[str, ...]:
    """Return the names of the methods that denoise a volume by itself, without others of its series.

    >>> "series" in single_methods()
    False
    """
    return tuple(name for name, method in METHODS.items() if not method.joint)
