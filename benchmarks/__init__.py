"""Measure Moorline beside what people use today, in one run: `python -m benchmarks`.

    trees        the builds that are published: generated, always the same for one seed
    measuring    one program: seconds, bytes written, peak memory
    scenario     the steps, and what a contender is
    ours, peers, classic    the contenders
    rounds       all contenders in alternation, several rounds
    latency      the same on a share with EFS's latency
    growth, week what changes with the number of files, the changed part, and 280 builds
    results      results.json
    goals, claims           what the results say
    report, tables, curves, charts   results -> docs/benchmarks.md

benchmarks/README.md says how to run it and how to read what comes out.
"""
