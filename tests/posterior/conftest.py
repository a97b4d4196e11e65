"""Fits that several tests look at."""

import posterior_models as models
import pytest

import taut


@pytest.fixture(scope="session")
def line():
    return models.Line.make()


@pytest.fixture(scope="session")
def line_fit(line):
    return taut.fit(models.line, line.data)


@pytest.fixture(scope="session")
def schools_data():
    return {"sigma": models.SIGMA, "y": models.EFFECT}


@pytest.fixture(scope="session")
def schools_fit(schools_data):
    return taut.fit(models.schools, schools_data)
