"""Scoring: predictions, metrics, judges, tables and reports. Write `from eval.metrics import ...`: `import eval` hides a builtin."""
