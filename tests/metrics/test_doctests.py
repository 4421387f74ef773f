import doctest
import importlib
import pkgutil

import pytest

import metrics

MODULES = sorted(module.name for module in pkgutil.iter_modules(metrics.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    assert doctest.testmod(importlib.import_module(f"metrics.{name}")).failed == 0
