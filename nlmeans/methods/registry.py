"""The methods by name: those of this package and those that other packages register.

A package registers a method by an entry point in the group ``nlmeans.methods``. In its ``pyproject.toml``::

    [project.entry-points."nlmeans.methods"]
    twice = "my_package.twice:TWICE"

where ``TWICE`` is a `Method`. ``METHODS["twice"] = TWICE`` does the same for the running process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from importlib.metadata import entry_points

from nlmeans.methods.grouped import BAYES, BEST, SUBSPACE
from nlmeans.methods.means import CLASSIC, LINEAR, PATCHWISE, STOCHASTIC
from nlmeans.methods.method import Method
from nlmeans.methods.series import SERIES
from nlmeans.methods.transform import DCT, PRI, WIENER

log = logging.getLogger("nlmeans")

GROUP = "nlmeans.methods"
"""Group of the entry points."""

BUILT_IN: dict[str, Method] = {
    "classic": CLASSIC,
    "patchwise": PATCHWISE,
    "linear": LINEAR,
    "stochastic": STOCHASTIC,
    "dct": DCT,
    "wiener": WIENER,
    "pri": PRI,
    "bayes": BAYES,
    "best": BEST,
    "subspace": SUBSPACE,
    "series": SERIES,
}


class Registry(MutableMapping[str, Method]):
    """Methods by name. Entry points are loaded when the registry is first read."""

    def __init__(self, methods: dict[str, Method]) -> None:
        self.methods = dict(methods)
        self.complete = False

    def load(self) -> None:
        """Add the methods of other packages. Log a warning for each one that cannot be loaded, and leave it out."""
        if self.complete:
            return
        self.complete = True  # set first, because a package that is loaded here may read the registry
        for entry in entry_points(group=GROUP):
            try:
                if entry.name in self.methods:
                    raise ValueError("there is a method with this name already")
                self[entry.name] = entry.load()
            except Exception as error:  # any error in another package
                log.warning("left out the method %r of %s: %s", entry.name, entry.value, error)

    def __getitem__(self, name: str) -> Method:
        self.load()
        return self.methods[name]

    def __setitem__(self, name: str, method: Method) -> None:
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
