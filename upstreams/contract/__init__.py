"""The rules of the contract and their findings; `upstreams.contract.check` runs them all."""
