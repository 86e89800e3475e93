"""Honest timings of modelpack beside every tool a user would pick instead.

One driver starts the servers, makes the models, fills the page cache before each timed run,
alternates the contestants, repeats, and writes Markdown, JSON and a plot. A contestant that is not
installed is listed as missing; a ratio is refused where the spread is wider than the difference.

    python -m benchmarks quick            # the headline rows, a few minutes
    python -m benchmarks full             # everything
    python -m benchmarks full --only one-file,push-cold
"""
