"""The paper's tables: their rows, how they are run and set out. Works in the repository only."""
