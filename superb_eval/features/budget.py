"""The size budget of the feature store: checked as it is read, before anything is computed or deleted for it."""

from __future__ import annotations

import math
import os

from superb_eval.errors import UserError

VARIABLE = "SUPERB_EVAL_STORE_GB"

DEFAULT_GB = 50.0


def budget_bytes(gigabytes: float | None = None) -> float:
    """Return a budget in bytes: of so many gigabytes (10^9 bytes), or `$SUPERB_EVAL_STORE_GB`, or 50 GB.

    Raises:
        UserError: it is no finite number above 0.
    """
    source, value = ("--store-gb", gigabytes) if gigabytes is not None else (VARIABLE, _from_environment())
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{source} is {value:g}; expected a number of gigabytes above 0, such as 50.")
    return 1e9 * value


def _from_environment() -> float:
    text = os.environ.get(VARIABLE, str(DEFAULT_GB))
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{VARIABLE} is '{text}'; expected a number of gigabytes above 0, such as 50.") from None
