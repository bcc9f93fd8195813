"""Pushes the results of an upstream to a model repository on the Hugging Face Hub: its model card and its records.

A README.md that is there keeps its text and metadata: only the section between our marks and our entries of the
`model-index` are replaced.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from superb_eval.errors import UserError
from superb_eval.export import model_card, shared_results
from superb_eval.results import record as records
from superb_eval.results.folder import Protocol, RunGroup, open_results
from superb_eval.results.formats import escape
from superb_eval.results.formats.markdown import one_row
from superb_eval.results.table.build import TableOptions, collect
from superb_eval.results.table.result_table import ResultTable
from superb_eval.runtime.screen import visible
from superb_eval.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelCard

FOLDER = "superb-eval"
"""Of the repository: a results folder, which `superb-eval table` reads."""

BEGIN, END = "<!-- superb-eval: begin -->", "<!-- superb-eval: end -->"
"""Around our section of README.md."""

README = "README.md"

OUR_COMMAND = "superb-eval "
"""How the command begins that each of our entries in a `model-index` names."""


@dataclass(frozen=True)
class HubExport:
    """What is pushed: the results of `groups`, all of one upstream, as files by path, and the section of README.md."""

    groups: tuple[RunGroup, ...]
    protocol: Protocol
    section: str
    files: dict[str, bytes]

    def describe(self) -> str:
        """Return the section, and the files with their sizes."""
        sizes = "\n".join(f"{path}: {len(content)} bytes" for path, content in self.files.items())
        return f"{README}, of which the rest is kept where there is one:\n\n{self.section}\n\n{sizes}"


def prepare(results: Path, name: str | None, protocol: Protocol, predictions: bool) -> HubExport:
    """Return what is pushed for the upstream `name` (None: the only one), with or without its `predictions`.

    Raises:
        UserError: there is no such folder, no run of that upstream in it, or no name and several upstreams.
    """
    opened = open_results(results)
    names = sorted({run.record.upstream.address for run in opened.runs})
    if name is None and len(names) != 1:
        listed = ", ".join(names) or "none, no run is there"
        raise UserError(f"{results}: --hub needs --model-card NAME, one of: {listed}.")
    groups = model_card.run_groups_of(opened, name or names[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shared_results.write(groups, folder)
        tables, _ = collect(folder, TableOptions(protocol))
        files = {
            f"{FOLDER}/{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and (predictions or path.name == records.NAME)
        }
    return HubExport(tuple(groups), protocol, _section(tables, groups), files)


def push(export: HubExport, repository: str, public: bool) -> str:
    """Push an export to `ORG/NAME` in one commit; make the repository, private unless `public`, where there is none.

    Returns the URL of the commit.

    Raises:
        UserError: there is no token, no network or no right to write there, or the README.md there can't be read.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError("--hub: no token of the Hugging Face Hub. `hf auth login` stores one; or set HF_TOKEN.")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    with _errors_explained(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        readme = merged_card(_existing_card(api, repository), export)
        contents = {README: readme.encode(), **export.files}
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(path, content) for path, content in contents.items()],
            commit_message=f"Add results of superb-eval {__version__}",
        )
    return str(commit.commit_url)


def merged_card(existing: str | None, export: HubExport) -> str:
    """Return README.md with our section and our entries of the `model-index`, in place of earlier ones.

    Raises:
        UserError: the metadata of the existing one can't be read.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    name, ours = model_index_to_eval_results(model_card.index(export.groups, export.protocol))
    try:
        card = ModelCard(existing or f"---\ntags: [speech]\n---\n\n# {escape.markdown(name)}\n")
    except Exception as error:  # whatever its parsers raise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"--hub: metadata of {README} there can't be read ({reason}). Correct them there.") from error
    data = cast(ModelCardData, card.data)
    data.eval_results = [*(result for result in data.eval_results or [] if not _is_ours(result)), *ours]
    data.model_name = data.model_name or name
    _replace_section(card, f"{BEGIN}\n{export.section}\n{END}")
    return str(card)


def _is_ours(result: Any) -> bool:
    return str((result.metric_args or {}).get("command", "")).startswith(OUR_COMMAND)


def _replace_section(card: ModelCard, section: str) -> None:
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if pattern.search(card.text):
        card.text = pattern.sub(lambda _: section, card.text, count=1)
    else:
        card.text = f"{card.text.rstrip()}\n\n{section}\n"


def _existing_card(api: HfApi, repository: str) -> str | None:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(api.hf_hub_download(repository, README, cache_dir=folder)).read_text(encoding="utf8")
        except RemoteEntryNotFoundError:
            return None


@contextmanager
def _errors_explained(repository: str) -> Iterator[None]:
    """Turn errors of the hub and of the network into one sentence each."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except HFValidationError as error:
        raise UserError(f"--hub {repository}: no name of a repository. Expected ORG/NAME.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = {
            401: "the hub refuses the token. `hf auth login` stores another one.",
            403: "the token has no right to write there. Use a token with write access, or another --hub ORG/NAME.",
        }.get(status, f"the hub answered {status}: {error.server_message or 'no reason given'}. Try again later.")
        raise UserError(f"--hub {repository}: {remedy}") from error
    except (HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        message = f"--hub {repository}: the hub can't be reached ({reason}). --dry-run needs no network."
        raise UserError(message) from error


def _section(tables: Sequence[ResultTable], groups: Sequence[RunGroup]) -> str:
    """Return our section of README.md: a table for each corpus and profile, and what the figures were made with."""
    record = max((group.record for group in groups), key=lambda record: record.started)
    commands = dict.fromkeys(shared_results.shared_record(group.record).command for group in groups)
    lines = [
        "## Evaluation with superb-eval",
        "",
        "The encoder is frozen; each task trains a head on a weighted sum of its layers. What is not headed as the "
        "official SUPERB protocol is not comparable with published SUPERB figures.",
        *(f"\n{one_row(table, table.rows[0])}" for table in tables),
        "",
        f"Weights {record.upstream.fingerprint[:10]}, superb-eval {record.versions.get('superb-eval', '?')}, last run "
        f"{record.started[:10]}. `{FOLDER}/` holds the records, with corpora, recipes and versions. Commands:",
        "",
        *(f"    {visible(command)}" for command in commands),
    ]
    return "\n".join(lines)
