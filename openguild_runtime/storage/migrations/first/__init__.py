"""The SQL of the first step, one module for each part of the schema."""

# Settings of functions whose statements find a few rows by index. Without the first, PostgreSQL plans them in each call, which
# takes four times as long as running them, because it overestimates generic plans for partitioned tables. Without the others,
# a plan made while the tables were empty scans them once they are full, until they are analysed.
LOOKUPS = """SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = 'off' SET enable_hashjoin = 'off'
    SET enable_mergejoin = 'off' SET enable_material = 'off'"""
