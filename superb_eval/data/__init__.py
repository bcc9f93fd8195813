"""Audio files and manifests: the input of upstreams and tasks."""
