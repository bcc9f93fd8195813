"""The recipe in a run's record, as this version reads it."""

from __future__ import annotations

from pydantic import ValidationError

from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from superb_eval.results.record import RunRecord, format_error


def recipe_of(record: RunRecord) -> Recipe:
    """Return a record's recipe.

    Raises:
        UserError: it is not valid in this version.
    """
    try:
        return Recipe.of_record(record.recipe)
    except ValidationError as error:
        raise UserError(f"the recipe in its record is not valid in this version: {format_error(error)}") from error
