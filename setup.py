"""The compiled modules; everything else is in pyproject.toml.

They use Python's limited API, so one wheel serves Python 3.11 and every later one.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup


def extension(name: str, **options: list[str]) -> Extension:
    """The compiled module `name`."""
    return Extension(
        f"vpmem_driver.{name}",
        [f"vpmem_driver/{name}.pyx"],
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
        py_limited_api=True,
        **options,
    )


setup(
    ext_modules=cythonize(
        [extension("_fastalloc"), extension("_linux"), extension("_pmem", depends=["vpmem_driver/_pmem_stream.h"])],
        compiler_directives={"language_level": 3, "boundscheck": True, "wraparound": False},
    ),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
