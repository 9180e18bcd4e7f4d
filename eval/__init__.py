"""Scoring: predictions, metrics, judges, tables, reports.

Import from the modules, `from eval.metrics import ...`: `import eval` would hide a builtin.
"""
