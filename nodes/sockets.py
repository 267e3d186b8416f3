"""The pack's own socket types."""

from comfy_api.latest import io

EditSocket = io.Custom("P2P_EDIT")
InversionSocket = io.Custom("P2P_INVERSION")
RecordSocket = io.Custom("P2P_RECORD")
SourceSocket = io.Custom("P2P_SOURCE")
PairsSocket = io.Custom("P2P_PAIRS")
