"""The bus: carries committed events and control messages between replicas."""
