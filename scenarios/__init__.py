"""Scenarios that ship with RecGym: the YAML files of this folder."""
