"""Logs without I/O: order, gaps and lineage for readers, queues and batches for appends."""
