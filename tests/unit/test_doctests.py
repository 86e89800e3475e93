"""The examples in the modules say what happens."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import cdi
import modelpack


def with_examples():
    for package in (modelpack, cdi):
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name in (package.__name__, *(found.name for found in inside)):
            if ">>> " in importlib.util.find_spec(name).loader.get_source(name):
                yield name


@pytest.mark.parametrize("name", list(with_examples()))
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
