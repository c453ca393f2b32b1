"""Torch is imported without holding up the window."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from napari_nlm import importing
from napari_nlm.importing import import_apart

ALONE = """
import sys
import napari_nlm.importing as importing

importing.load_library_of_torch()
maps = open("/proc/self/maps").read()
print("torch" in sys.modules, "libtorch_cpu.so" in maps)
importing.import_apart("torch")
print(sys.modules["torch"].ones(2).sum().item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only where libraries are loaded so")
def test_the_library_of_torch_is_loaded_before_the_import_which_finds_it() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "2.0"]


def test_one_module_is_imported_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, names = threading.Event(), threading.Event(), list[str]()

    def slow(name: str) -> Any:
        names.append(name)
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(importing.importlib, "import_module", slow)
    threads = [threading.Thread(target=import_apart, args=[name]) for name in ("first", "second")]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    assert names == ["first"]
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert names == ["first", "second"]


def test_a_module_that_is_missing_is_an_error() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        import_apart("no_such_module")


def test_without_torch_the_import_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing.importlib.util, "find_spec", lambda name: None)
    importing.load_library_of_torch()
