"""Prompt-to-Prompt image editing for ComfyUI: the entry point that the host loads."""

from comfy_api.latest import ComfyExtension, io

from .nodes import all_nodes

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


class PromptToPromptExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return all_nodes()


async def comfy_entrypoint() -> PromptToPromptExtension:
    return PromptToPromptExtension()
