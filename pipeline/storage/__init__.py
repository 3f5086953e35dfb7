"""Rows at rest: one encoder, one writer, migrations and read-only queries over a ClickHouse engine.

``engine`` says what an engine must do and what both do alike; ``embedded`` runs in this process, ``clickhouse`` speaks to a
server. Nothing else imports their libraries, but for ``native``, which has the encoder of the one for the other.
"""
