"""Frozen speech encoders behind one interface (`upstreams.base`), opened by address (`upstreams.registry`)."""
