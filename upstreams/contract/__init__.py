"""The rules of the contract, and what they find; `upstreams.contract.check` runs them all."""
