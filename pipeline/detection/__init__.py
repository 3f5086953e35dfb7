"""Detection: scored rows and watermarks in, step counts and signals out. Pure; its state is a snapshot of records."""
