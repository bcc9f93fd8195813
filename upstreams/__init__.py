"""Frozen speech encoders behind one interface (`upstreams.base`), loaded by address (`upstreams.registry`)."""
