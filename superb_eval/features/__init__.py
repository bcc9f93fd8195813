"""Hidden states of a frozen upstream: extracted once, pooled where that is exact, stored, and weighted."""
