"""Audio and manifests: what an encoder reads."""
