"""Metrics, each checked against an independent reference."""
