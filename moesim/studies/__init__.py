"""Questions that take several runs, or several looks at a trace: what limits a run, what a trace is like."""
