"""The demo: word edits made by the real ComfyUI, collected on one labelled sheet."""
