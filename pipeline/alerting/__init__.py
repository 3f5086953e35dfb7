"""What a signal says to people."""
