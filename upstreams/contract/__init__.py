"""The rules of the contract, and what they find; `upstreams.check` runs them all."""
