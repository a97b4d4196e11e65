"""Batting records of 1970."""

import numpy as np

# player, hits in the first 45 at-bats, batting average over the remainder of the season
_RECORDS = (
    ("Clemente", 18, 0.346),
    ("F Robinson", 17, 0.298),
    ("F Howard", 16, 0.276),
    ("Johnstone", 15, 0.222),
    ("Berry", 14, 0.273),
    ("Spencer", 14, 0.270),
    ("Kessinger", 13, 0.263),
    ("L Alvarado", 12, 0.210),
    ("Santo", 11, 0.269),
    ("Swoboda", 11, 0.230),
    ("Unser", 10, 0.264),
    ("Williams", 10, 0.256),
    ("Scott", 10, 0.303),
    ("Petrocelli", 10, 0.264),
    ("E Rodriguez", 10, 0.226),
    ("Campaneris", 9, 0.286),
    ("Munson", 8, 0.316),
    ("Alvis", 7, 0.200),
)


def baseball() -> dict[str, np.ndarray]:
    """Return the batting records of 18 major league players of the 1970 season.

    Returns:
        Arrays of length 18 by name: ``player`` (text), ``at_bats`` (45 for everyone), ``hits``
        in those first at-bats, and ``rest_of_season``, the average over all later at-bats,
        which a model fitted to the first two can be judged by.

    Source:
        B. Efron and C. Morris (1975), "Data analysis using Stein's estimator and its
        generalizations", Journal of the American Statistical Association 70, 311-319, Table 1.
    """
    players, hits, rest_of_season = zip(*_RECORDS, strict=True)
    return {
        "player": np.array(players),
        "at_bats": np.full(len(_RECORDS), 45),
        "hits": np.array(hits),
        "rest_of_season": np.array(rest_of_season),
    }
