"""The figures of the documents: collected from runs into `recipes/recorded/`, and written between marks from there."""
