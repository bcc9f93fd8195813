"""Many cells: what is missing is planned and run, what is finished is kept."""
