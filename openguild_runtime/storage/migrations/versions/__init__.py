"""One module per step, forward only. Steps expand first and contract in a later release, because old replicas serve meanwhile."""
