"""Makes a folder of manifests of another toolkit's data: `superb-eval corpus new`."""
