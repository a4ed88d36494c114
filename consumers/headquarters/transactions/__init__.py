"""Transactions at headquarters: orders become sales orders, cash-and-carry sales become statements.

`run.py` ingests transactions, `release.py` releases them once their customers have account numbers.
"""
