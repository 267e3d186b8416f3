"""Instruction datasets from caption pairs, with this repository's nodes: on one machine or many.

A program beside the ComfyUI pack, which never imports it. See docs/pairs.md.
"""
