"""Carries out the effects that operations ask for."""
