"""A rolling restart of replicas behind a real proxy, with gateway clients that must not notice."""
