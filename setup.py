"""The compiled modules; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension("vpmem_driver._fastalloc", ["vpmem_driver/_fastalloc.pyx"]),
            Extension("vpmem_driver._linux", ["vpmem_driver/_linux.pyx"]),
            Extension("vpmem_driver._pmem", ["vpmem_driver/_pmem.pyx"], depends=["vpmem_driver/_pmem_stream.h"]),
        ],
        compiler_directives={"language_level": 3, "boundscheck": True, "wraparound": False},
    ),
)
