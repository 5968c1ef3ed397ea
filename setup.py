"""Builds the optional Cython extensions. Without Cython or a C compiler the install succeeds and the pure ring serves.

OPENGUILD_PURE=1 leaves the extensions out; OPENGUILD_DEBUG_EXT=1 builds them with bounds checks and C assertions,
OPENGUILD_DEBUG_EXT=sanitize under the address and undefined-behaviour sanitizers too (`make test-native`).
"""

import os
import shutil

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


def extensions() -> list[Extension]:
    if os.environ.get("OPENGUILD_PURE") == "1":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        print("Cython is not here: the pure-Python ring will serve")
        return []
    how = os.environ.get("OPENGUILD_DEBUG_EXT", "")
    debug = how in {"1", "sanitize"}
    # no debug information in a release: it names the directory of the build, and two builds would differ
    arguments = ["-O1", "-g", "-UNDEBUG"] if debug else ["-O2", "-g0"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if how == "sanitize" else []
    modules = [
        Extension(name, [source], extra_compile_args=arguments + sanitizers, extra_link_args=sanitizers)
        for name, source in (
            ("openguild_proto.fanout._ring", "ext/ring.pyx"),
            ("openguild_runtime.net._flush", "ext/flush.pyx"),
        )
    ]
    modules = cythonize(
        modules,
        include_path=["."],
        compiler_directives={"boundscheck": debug, "wraparound": False, "cdivision": True, "initializedcheck": debug},
        force=debug,
    )
    for module in modules:  # afterwards: cythonize makes new objects and forgets this
        module.optional = True
    return modules


class FreshBuild(build_py):
    """Without what an earlier build has left: a wheel ships all that is in its directory, also modules that are gone."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(ext_modules=extensions(), cmdclass={"build_py": FreshBuild})
