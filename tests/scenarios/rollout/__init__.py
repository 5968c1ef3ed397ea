"""A rolling restart of replicas behind a real proxy, which gateway clients must not notice."""
