"""One file per task: labels, head, loss, decoding and metric. `downstreams.base` defines what a task is."""
