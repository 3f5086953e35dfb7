"""The runtimes: they drive scoring and detection, and keep what must survive."""
