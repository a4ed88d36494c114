"""Headquarters' side of what channels sell: orders become sales orders, cash-and-carry transactions statements.

`run.py` takes transactions in, `release.py` lets them through once their customers have account numbers.
"""
