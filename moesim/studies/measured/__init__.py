"""Measured tables against the cost forms.

``table`` reads a Parquet file; ``kinds`` says what each kind of table means: which rows a form covers, what work a row
is, which software stack it ran on; ``moe``, ``communication`` and ``kernels`` do so for their tables.
"""
