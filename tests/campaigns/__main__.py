"""`python -m tests.campaigns NAME [...]`: the long form of a campaign, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tests.campaigns import job_files, kill_commands, limits, names, networks, own_encoders, recipes, records, streams

CAMPAIGNS: dict[str, Callable[[Sequence[str]], int]] = {
    "encoders": own_encoders.main,
    "job_files": job_files.main,
    "kill_commands": kill_commands.main,
    "limits": limits.main,
    "names": names.main,
    "networks": networks.main,
    "recipes": recipes.main,
    "records": records.main,
    "streams": streams.main,
}

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in CAMPAIGNS:
        sys.exit(f"Expected the name of a campaign: {', '.join(CAMPAIGNS)}.")
    sys.exit(CAMPAIGNS[sys.argv[1]](sys.argv[2:]))
