"""Results of finished runs: records, scores with intervals, result tables, `verify`."""
