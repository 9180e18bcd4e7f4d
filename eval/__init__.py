"""Scoring: predictions, metrics, judges, tables, reports. Import from `eval.metrics` etc.: `import eval` hides a builtin."""
