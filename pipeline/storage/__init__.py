"""Rows at rest: one encoder, one writer, migrations and read-only queries over a ClickHouse engine.

``engine`` says what an engine must do, ``embedded`` is the one that runs in this process. Nothing else imports its library.
"""
