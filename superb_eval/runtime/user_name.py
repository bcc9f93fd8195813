"""The user's name, which torch and others ask for, and which a container's user may not have."""

from __future__ import annotations

import getpass
import os


def ensure() -> bool:
    """Set `USER` where the system knows no name of this process's user, as under `docker run --user`; return whether.

    torch names a folder by it; its optimisers and transformers fail otherwise.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["USER"] = f"user{os.getuid()}"
        return True
    return False
