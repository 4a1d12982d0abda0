"""Monitors, fitted on some domains and tested on others."""
