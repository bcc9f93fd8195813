"""`python -m tests.campaigns NAME [...]`: the long form of a campaign by name; `all`: of each, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tests.campaigns import (
    fuzz,
    job_files,
    kill,
    kill_commands,
    limits,
    names,
    networks,
    own_encoders,
    recipes,
    records,
    sharing,
    soak,
    streams,
)

CAMPAIGNS: dict[str, Callable[[Sequence[str]], int]] = {
    "encoders": own_encoders.main,
    "fuzz": fuzz.main,
    "job_files": job_files.main,
    "kill": kill.main,
    "kill_commands": kill_commands.main,
    "limits": limits.main,
    "names": names.main,
    "networks": networks.main,
    "recipes": recipes.main,
    "records": records.main,
    "sharing": sharing.main,
    "soak": soak.main,
    "streams": streams.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run the campaign that the first argument names with the others, or all; return 1 where one found a fault."""
    name, *more = arguments or [""]
    if name == "all":
        return max([campaign([]) for campaign in CAMPAIGNS.values()])
    if name not in CAMPAIGNS:
        sys.exit(f"Expected the name of a campaign, or all: {', '.join(CAMPAIGNS)}.")
    return CAMPAIGNS[name](more)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
