"""Questions that take several runs, or several looks at a trace: what limits a run, what a trace is like.

Many runs of one arrow: ``points`` (a base scenario with settings, each run once), ``store`` (where results are kept, by
what decides them), ``execution`` (processes, or Ray). ``sweep`` and ``compare`` stand on them.
"""
