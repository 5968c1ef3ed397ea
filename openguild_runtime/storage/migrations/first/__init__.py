"""The SQL of the first step, by what it makes."""

# Of functions whose statements find a few rows by index, whatever the tables hold. Without the first setting PostgreSQL plans
# them anew in each call, which takes four times what they do: for partitioned tables it takes a plan with parameters for
# the worse one. Without the others a plan that was made when the tables were empty scans them when they are full, until
# they are analysed.
LOOKUPS = """SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = 'off' SET enable_hashjoin = 'off'
    SET enable_mergejoin = 'off' SET enable_material = 'off'"""
