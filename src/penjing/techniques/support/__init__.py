"""Numerical routines that a technique is made of; no plug-ins here."""
