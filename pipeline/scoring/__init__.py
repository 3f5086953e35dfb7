"""Scoring: a block of mentions in, what each customer says about what, how strongly, out. Pure, on columns."""
