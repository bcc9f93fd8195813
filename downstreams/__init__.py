"""One file per task: labels, head, loss, decoding and metric. `downstreams.base` says what a task is."""
