"""One module per step, forward only. Expand first, contract in a later release: old replicas serve while it runs."""
