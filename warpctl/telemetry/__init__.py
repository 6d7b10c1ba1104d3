"""How the programs speak to operators: structured log lines. Imports nothing of the package."""
